"""What Ray Tune gets of a trial's epochs."""

from __future__ import annotations

from typing import Any

from adafocus.training.reports import EpochReport
from pipelines.sweeps.workers.tune_reporter import TuneReporter


def test_reports_to_tune_have_one_clock_and_compare_in_the_judged_stage() -> None:
    reports: list[dict[str, Any]] = []
    reporter = TuneReporter(reports.append, "ppo", 4, "top1")
    rows = [
        EpochReport("pretrain", 1, {"pretrain/val_focuser_top1": 7.0}, 0),
        EpochReport("warmup", 4, {"warmup/val_top1": 9.0}, 0),
        EpochReport("ppo", 5, {"ppo/val_top1": 20.0}, 0),
        EpochReport("ppo", 6, {"ppo/loss": 1.0}, 0),  # an epoch without evaluation
        EpochReport("finetune", 7, {"finetune/val_top1": 30.0}, 0),
    ]
    reporter(rows[:2])
    reporter(rows[2:])
    assert [row["clock"] for row in reports] == [1, 4, 5, 6, 7]
    assert [row["score"] for row in reports] == [7.0, 9.0, 20.0, 20.0, 30.0]
    judged = [(row["judged_epoch"], row["judged_score"]) for row in reports if "judged_epoch" in row]
    assert judged == [(1, 20.0)]
