"""Sweeps whose trials a search draws: none twice, none lost, and an end. Real processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.sweeping import settings, start, trials, weights
from pipelines.tracking.client import Tracker

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_search_ends_when_all_was_tried(
    synthetic_shards: str, tiny_changes: dict[str, object], tmp_path: Path
) -> None:
    """Eight draws of four points. A second start finds everything done."""
    runs = tmp_path / "runs"
    tiny = ["--recipe", "demo", "--shards", synthetic_shards, *settings(tiny_changes)]
    sample = ["--sample", "finetune.head_lr=choice:1e-3:2e-3", "--sample", "finetune.batch_size=choice:4:8"]
    sweep = start(runs, *tiny, *sample, "--num-samples", 8, "--search", "optuna", "--name", "o")
    assert sweep.wait(400) == 0, sweep.text
    found = trials(runs, "o")
    assert len(found) == 4 == len({run.data.tags["adafocus.trial"] for run in found})
    assert {run.info.status for run in found} == {"FINISHED"}
    assert "sweep o: 4 trials, 4 finished" in sweep.text and "the search ends" in sweep.text
    before = weights(runs)
    again = start(runs, "--resume", "o", log="again")
    assert again.wait(400) == 0, again.text
    assert "4 trials are finished from before" in again.text and "sweep o: 4 trials, 4 finished" in again.text
    assert weights(runs) == before and len(trials(runs, "o")) == 4
    (parent,) = Tracker(runs).find("sweep")
    assert parent.info.status == "FINISHED" and parent.data.metrics["trials"] == 4


def test_a_time_budget_names_the_trials_that_a_search_had_not_drawn(
    synthetic_shards: str, tiny_changes: dict[str, object], tmp_path: Path
) -> None:
    """It ends in the stages that all trials share, which is no failure: all trials are stopped before they began."""
    runs = tmp_path / "runs"
    tiny = ["--recipe", "demo", "--shards", synthetic_shards, *settings({**tiny_changes, "pretrain.epochs": 100000})]
    drawn = ["--sample", "ppo.lr=loguniform:1e-4:1e-2", "--num-samples", 3, "--search", "optuna"]
    sweep = start(runs, *tiny, *drawn, "--name", "b", "--time-budget", 25 / 3600)
    assert sweep.wait(400) == 0, sweep.text
    assert "the time budget ended in the stages that all trials share" in sweep.text
    for number in (1, 2, 3):
        assert f"trial {number}, not drawn yet: score -, the time budget ended" in sweep.text
    assert "sweep b: 3 trials, 3 stopped" in sweep.text and "`adafocus tune --resume b`" in sweep.text
    assert "Traceback" not in sweep.text
    (parent,) = Tracker(runs).find("sweep")
    assert parent.info.status == "KILLED" and parent.data.metrics["trials_stopped"] == 3
    assert trials(runs, "b") == []
