"""Stages of no epochs, which the bounds allow: they are evaluated as they begin, so that every trial has a score."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from adafocus.checkpoint import read_meta
from helpers.sweeping import settings
from pipelines.cli.main import main
from pipelines.tracking.client import Tracker
from pipelines.tracking.score import score_name, score_of_stages

pytestmark = pytest.mark.ray


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_trials_without_epochs_are_finished_and_compared(
    synthetic_shards: str,
    tiny_changes: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = tmp_path / "runs"

    def adafocus(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["adafocus", *map(str, arguments), "--runs", str(runs)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        assert not stop.value.code, err
        return out

    changes = {**tiny_changes, "warmup.epochs": 1, "finetune.epochs": 0}
    tune = ("tune", "--recipe", "demo", "--shards", synthetic_shards, "--name", "none", *settings(changes))
    out = adafocus(*tune, "--grid", "ppo.epochs=0,1", "--scheduler", "asha")
    assert len(re.findall(r"epochs=[01]: score \d+\.\d$", out, re.MULTILINE)) == 2
    assert "sweep none: 2 trials, 2 finished" in out

    trials = {trial.params["ppo.epochs"]: trial for trial in Tracker(runs).trials(sweep="none")}
    for epochs, trial in trials.items():
        finetune = read_meta(runs / trial.checkpoint)
        assert [row["clock"] for row in finetune.history] == [3 + int(epochs)]  # epochs of the stages before
        assert trial.score == finetune.metrics[score_name("finetune", "top1")] == score_of_stages([finetune])
        assert "finetune/loss" not in trial.metrics
    assert trials["0"].metrics["ppo/val_top1"] == trials["0"].metrics["finetune/val_top1"]  # nothing was trained

    assert "2 trials, 2 finished" in adafocus(*tune, "--grid", "ppo.epochs=0,1", "--scheduler", "asha")
    benchmark = ("benchmark", "--shards", synthetic_shards, "--sweep", "none", "--best", 2, "--json")
    measured = json.loads(adafocus(*benchmark))
    assert [each["rows"][0]["top1"] for each in measured] == sorted((t.score for t in trials.values()), reverse=True)
