"""What a sweep saves: eight trials over ppo.* train pretrain and warmup once, and say so. A real process."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from helpers.sweeping import settings, start, trials, weights
from pipelines.tracking.client import Tracker

pytestmark = pytest.mark.ray


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_eight_trials_over_ppo_train_what_they_share_once(
    synthetic_shards: str, tiny_changes: dict[str, object], tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    once = {f"{stage}.epochs": 1 for stage in ("ppo", "finetune")}
    tiny = ["--recipe", "demo", "--shards", synthetic_shards, *settings({**tiny_changes, **once})]
    grid = ["--grid", "ppo.gamma=0.5,0.6,0.7,0.8", "--grid", "ppo.lr=1e-3,2e-3"]
    sweep = start(runs, *tiny, *grid, "--name", "eight", "--max-concurrent", 1)
    assert sweep.wait(560) == 0, sweep.text
    assert {run.info.status for run in trials(runs, "eight")} == {"FINISHED"} and len(trials(runs, "eight")) == 8
    kinds = sorted(Path(name).parent.name.split("-")[0] for name in weights(runs))
    assert kinds == ["finetune"] * 8 + ["ppo"] * 8 + ["pretrain", "warmup"]
    (parent,) = Tracker(runs).find("sweep")
    metrics = parent.data.metrics
    assert (metrics["reuse/stages_trained"], metrics["reuse/stages_reused"]) == (18, 14)
    assert metrics["reuse/hours_saved"] > 0
    line = r"stages: 18 trained in \d+ stage-seconds, 14 times one was found finished, which saved \d+ stage-seconds"
    assert re.search(line, sweep.text), sweep.text
