"""Weak trials stop early, with one worker and with several, and give what they had back at once."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from helpers.packing import pack_synthetic
from helpers.sweeping import settings, start, trials
from preprocessing.datasets import synthetic
from preprocessing.datasets.synthetic import SyntheticSpec

pytestmark = pytest.mark.ray

EASY = SyntheticSpec(num_train=60, num_val=20, num_frames=8, size=40, digit=24, fragments=0)
FIXED = ["--set", "warmup.backbone_lr=3e-3", "--set", "warmup.head_lr=3e-3"]
GRID = ["--grid", "warmup.lr_batch_size=8,8000000,16000000", *FIXED]
"""The first learns at these rates (15 % of 20 clips after an epoch, 35 % after eight); the others have a millionth of
them and stay at the 10 % of their first weights."""
EPOCHS_BEFORE = 6
PRUNED = r"pruned in warmup after ([1236]) of its epochs, epoch (\d+) in all"
"""At the first or the second rung, as rounding has it: 1 or 3 of 8 epochs, 2 or 6 of 18."""


@pytest.fixture(scope="module")
def easy(tmp_path_factory: pytest.TempPathFactory, tiny_changes: dict[str, object]) -> list[str]:
    """Options of a sweep over digits so large that something is learned in seconds."""
    root, shards = tmp_path_factory.mktemp("easy"), tmp_path_factory.mktemp("shards")
    synthetic.make(root, EASY)
    pack_synthetic(root, shards, EASY.size)
    changes = {**tiny_changes, "model.patch_size": 28, "pretrain.epochs": EPOCHS_BEFORE, "warmup.epochs": 8}
    return ["--recipe", "demo", "--shards", str(shards), *settings(changes)]


def check_pruned(runs: Path, text: str) -> None:
    """The good trial is finished; the others were pruned inside warmup, are no failures, and went no further."""
    found = {run.data.params["warmup.lr_batch_size"]: run for run in trials(runs, "a")}
    assert len(found) == 3, text
    good, *weak = (found[key] for key in ("8", "8000000", "16000000"))
    assert good.info.status == "FINISHED" and "adafocus.pruned" not in good.data.tags
    for run in weak:
        assert run.info.status == "FINISHED", text
        told = re.fullmatch(PRUNED, run.data.tags["adafocus.pruned"])
        assert told and int(told[2]) == EPOCHS_BEFORE + int(told[1])
        assert run.data.tags["adafocus.pruned_epoch"] == told[2]
        assert "ppo/loss" not in run.data.metrics
    assert len(re.findall(f"score [0-9.]+, {PRUNED}", text)) == 2
    assert "sweep a: 3 trials, 1 finished, 2 pruned" in text


def idle_s(runs: Path) -> list[float]:
    """Seconds between the end of a pruned trial and the begin of the next."""
    ordered = sorted(trials(runs, "a"), key=lambda run: run.info.start_time)
    pairs = itertools.pairwise(ordered)
    return [(b.info.start_time - a.info.end_time) / 1000 for a, b in pairs if "adafocus.pruned" in a.data.tags]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_weak_trials_are_pruned_in_the_stage_that_differs(easy: list[str], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    sweep = start(runs, *easy, *GRID, "--name", "a", "--scheduler", "asha", "--max-concurrent", 1)
    assert sweep.wait(500) == 0, sweep.text
    check_pruned(runs, sweep.text)
    # The next one starts a process of its own, which imports torch: seconds, or a minute where others are at work.
    assert len(idle_s(runs)) == 1 and idle_s(runs)[0] < 120


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pruned_groups_of_workers_make_room_for_the_next(easy: list[str], tmp_path: Path) -> None:
    """Two workers each, on as many processors as one trial needs: the next trial starts only if the workers of the
    pruned one are gone. Epochs of a tenth of a second: workers may run a few ahead of what Tune knows, not more."""
    runs = tmp_path / "runs"
    options = ["--workers-per-trial", 2, "--cpus-per-worker", 1, "--set", "warmup.epochs=18"]
    sweep = start(runs, *easy, *GRID, "--name", "a", "--scheduler", "asha", *options)
    assert sweep.wait(800) == 0, sweep.text
    check_pruned(runs, sweep.text)
    assert len(idle_s(runs)) == 1 and idle_s(runs)[0] < 60


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_restarted_sweep_neither_runs_pruned_trials_again_nor_forgets_them(easy: list[str], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    sweep = start(runs, *easy, *GRID, "--name", "a", "--scheduler", "asha", "--max-concurrent", 1)
    assert sweep.wait(400) == 0, sweep.text
    again = start(runs, "--resume", "a", log="again")
    assert again.wait(400) == 0, again.text
    assert "3 trials are finished from before" in again.text
    check_pruned(runs, again.text)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_draws_what_pruning_then_stops(easy: list[str], tmp_path: Path) -> None:
    """The same three rates; with seed 0 the search draws the one in the middle first."""
    runs = tmp_path / "runs"
    drawn = "warmup.lr_batch_size=choice:8000000:8:16000000"
    sample = ["--sample", drawn, "--num-samples", 3, "--search", "optuna"]
    fixed = [*FIXED, "--set", "seed=0", "--max-concurrent", 1]
    sweep = start(runs, *easy, *sample, *fixed, "--name", "a", "--scheduler", "asha")
    assert sweep.wait(800) == 0, sweep.text
    check_pruned(runs, sweep.text)
