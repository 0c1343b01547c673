"""What happens to sweeps: killed workers, killed drivers, trials that fail, full disks, two at once. Real processes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from adafocus import checkpoint
from helpers.sweeping import (
    assert_each_epoch_once,
    holder,
    settings,
    start,
    trials,
    wait_for,
    weights,
)
from helpers.tiny import STAGES
from pipelines.sweeps.sweep_file import load_sweep
from pipelines.tracking.client import Tracker

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def tiny(synthetic_shards: str, tiny_changes: dict[str, object]) -> list[str]:
    """Options of a sweep whose stages take a second."""
    return ["--recipe", "demo", "--shards", synthetic_shards, *settings(tiny_changes)]


def test_a_worker_killed_in_each_stage_goes_on_from_its_last_epoch(tiny: list[str], tmp_path: Path) -> None:
    runs, epochs = tmp_path / "runs", 30
    longer = settings({f"{stage}.epochs": epochs for stage in STAGES})
    sweep = start(runs, *tiny, *longer, "--name", "k", "--grid", "ppo.gamma=0.5", "--max-concurrent", 1)
    for stage in STAGES:
        wait_for(lambda stage=stage: holder(runs, stage), sweep)
        os.kill(holder(runs, stage) or 0, signal.SIGKILL)
    assert sweep.wait() == 0, sweep.text
    for stage in STAGES:
        assert f"{stage} goes on from epoch" in sweep.text, sweep.text
    (trial,) = trials(runs, "k")
    assert trial.info.status == "FINISHED"
    for number, stage in enumerate(STAGES):
        steps = list(range(1 + number * epochs, 1 + (number + 1) * epochs))
        assert_each_epoch_once(runs, [trial], f"{stage}/seconds", steps)
    assert not list(runs.glob("*.partial")) and not list((runs / ".locks").iterdir())


def test_trials_that_fail_are_listed_with_their_reason_and_stop_no_other(tiny: list[str], tmp_path: Path) -> None:
    """Two ask for half a terabyte, which raises, one diverges, one is well."""
    runs = tmp_path / "runs"
    grid = ["--grid", "model.policy_hidden=16,400000", "--grid", "finetune.head_lr=1e-3,1e30"]
    sweep = start(runs, *tiny, *grid, "--name", "f")
    assert sweep.wait(400) == 1, sweep.text
    found = {
        (run.data.params["model.policy_hidden"], run.data.params["finetune.head_lr"]): run for run in trials(runs, "f")
    }
    assert len(found) == 4
    assert found["16", "0.001"].info.status == "FINISHED"
    reasons = {key: run.data.tags["adafocus.reason"] for key, run in found.items() if run.info.status == "FAILED"}
    assert len(reasons) == 3
    assert "NonFiniteLossError: the loss is nan" in reasons["16", "1e+30"]
    assert "can't allocate memory" in reasons["400000", "0.001"] or "not enough memory" in reasons["400000", "0.001"]
    for line in ("policy_hidden=16 head_lr=0.001: score", "policy_hidden=16 head_lr=1e+30: FAILED: NonFiniteLossError"):
        assert line in sweep.text, sweep.text
    assert "3 of 4 trials failed" in sweep.text and "Traceback" not in sweep.text
    (parent,) = Tracker(runs).find("sweep")
    assert parent.info.status == "FAILED" and parent.data.metrics["trials_failed"] == 3
    # With the reason gone (here: a smaller space is no reason) the finished one is not run again.
    before = weights(runs)
    again = start(runs, "--resume", "f", log="again")
    assert again.wait(400) == 1 and "1 trials are finished from before" in again.text
    assert weights(runs) == before and len(trials(runs, "f")) == 4


def test_a_worker_that_always_dies_fails_its_trial_with_a_reason(tiny: list[str], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    options = [*tiny, *settings({"ppo.epochs": 200}), "--name", "d", "--grid", "ppo.gamma=0.5", "--max-failures", 1]
    sweep = start(runs, *options)
    for _ in range(2):
        wait_for(lambda: holder(runs, "ppo"), sweep)
        pid = holder(runs, "ppo") or 0
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda pid=pid: holder(runs, "ppo") != pid or sweep.process.poll() is not None)
    assert sweep.wait() == 1, sweep.text
    (trial,) = trials(runs, "d")
    assert trial.info.status == "FAILED" and "its worker died 2 times" in trial.data.tags["adafocus.reason"]
    assert "nothing is known of it" not in trial.data.tags["adafocus.reason"]
    assert "gamma=0.5: FAILED: its worker died 2 times" in sweep.text


@pytest.mark.parametrize("search", ["random", "optuna"])
def test_a_sweep_whose_driver_was_killed_goes_on(search: str, tiny: list[str], tmp_path: Path) -> None:
    """Killed when one trial is finished and another under way: no trial is lost, none is there twice, no finished stage
    is trained again."""
    runs = tmp_path / "runs"
    drawn = ["--sample", "ppo.lr=loguniform:1e-4:1e-2", "--num-samples", 4, "--search", search, "--max-concurrent", 1]
    sweep = start(runs, *tiny, *settings({"ppo.epochs": 12}), *drawn, "--name", "r")
    wait_for(lambda: list(runs.glob("finetune-*/meta.json")) and holder(runs, "ppo"), sweep)
    sweep.kill()
    before, begun = weights(runs), {run.info.run_id for run in trials(runs, "r")}
    assert len(before) >= 4 and len(begun) >= 2
    resumed = start(runs, "--resume", "r", log="resumed")
    assert resumed.wait(400) == 0, resumed.text
    assert "goes on from epoch" in resumed.text, "the trial under way lost no epoch"
    after, found = weights(runs), trials(runs, "r")
    assert {name: after[name] for name in before} == before
    assert len(found) == 4 and begun <= {run.info.run_id for run in found}
    assert all(run.info.status == "FINISHED" for run in found)
    assert len({run.data.tags["adafocus.trial"] for run in found}) == 4
    assert_each_epoch_once(runs, found, "ppo/seconds", list(range(5, 17)))
    assert len(list(runs.glob("ppo-*"))) == len(list(runs.glob("finetune-*"))) == 4
    (parent,) = Tracker(runs).find("sweep")
    assert parent.info.status == "FINISHED" and parent.data.metrics["reuse/stages_reused"] == 6
    # A third start finds everything done.
    assert start(runs, "--resume", "r", log="third").wait() == 0
    assert weights(runs) == after and len(trials(runs, "r")) == 4


def test_two_sweeps_at_once_share_stages_and_not_names(tiny: list[str], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    first = start(runs, *tiny, "--name", "one", "--grid", "ppo.gamma=0.5,0.7", log="one")
    second = start(runs, *tiny, "--name", "two", "--grid", "ppo.gamma=0.7,0.9", log="two")
    wait_for((runs / "sweeps" / "one.json").exists, first)
    same = start(runs, *tiny, "--name", "one", "--grid", "ppo.gamma=0.5,0.7", log="same")
    assert same.wait() == 2 and "sweep 'one' is running already: process" in same.text.strip().splitlines()[-1]
    assert first.wait(400) == 0, first.text
    assert second.wait(400) == 0, second.text
    kinds = sorted(Path(name).parent.name.split("-")[0] for name in weights(runs))
    assert kinds == ["finetune"] * 3 + ["ppo"] * 3 + ["pretrain", "warmup"]
    assert [len(trials(runs, name)) for name in ("one", "two")] == [2, 2]
    assert all(run.info.status == "FINISHED" for name in ("one", "two") for run in trials(runs, name))
    assert len(Tracker(runs).find("sweep")) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 5 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "none", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def valid(runs: Path) -> list[str]:
    """Finished stages, each read to the last byte."""
    for meta in runs.glob("*/meta.json"):
        checkpoint.read_meta(meta.parent)
        assert load_file(next(meta.parent.glob("*.safetensors")))
    return sorted(meta.parent.name for meta in runs.glob("*/meta.json"))


@pytest.mark.parametrize("verb", ["train", "tune"])
def test_a_full_disk_is_named_and_what_was_written_stays(
    verb: str, small_disk: Path, tiny: list[str], tmp_path: Path
) -> None:
    runs = small_disk / "runs"
    options = [*tiny, "--name", "full", *(["--grid", "ppo.gamma=0.5,0.7"] if verb == "tune" else [])]
    full = start(runs, *options, verb=verb, folder=tmp_path)
    status = full.wait(400)
    assert status in (1, 2), full.text
    assert "No space left" in full.text or "no space left" in full.text or "disk is full" in full.text, full.text
    assert "Traceback" not in full.text
    finished = valid(runs)
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    again = start(runs, *options, verb=verb, log="again", folder=tmp_path)
    assert again.wait(400) == 0, again.text
    assert set(finished) < set(valid(runs))
    assert len(valid(runs)) == (6 if verb == "tune" else 4)
    assert {run.info.status for run in Tracker(runs).find("trial")} == {"FINISHED"}


def test_a_time_budget_stops_a_sweep_that_goes_on_later(tiny: list[str], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    options = [*tiny, *settings({"ppo.epochs": 300}), "--grid", "ppo.gamma=0.5,0.7", "--name", "b"]
    assert start(runs, *options[:-2], "--name", "warm", *settings({"ppo.epochs": 1})).wait() == 0  # the shared stages
    stopped = start(runs, *options, "--time-budget", 45 / 3600, log="stopped")
    assert stopped.wait() == 0, stopped.text
    assert "the time budget ended" in stopped.text and "`adafocus tune --resume b`" in stopped.text
    assert "sweep b: 2 trials, 2 stopped" in stopped.text
    assert {run.info.status for run in trials(runs, "b")} <= {"KILLED"}  # of those that began
    resumed = start(runs, "--resume", "b", log="resumed")
    assert resumed.wait(400) == 0, resumed.text
    assert {run.info.status for run in trials(runs, "b")} == {"FINISHED"} and len(trials(runs, "b")) == 2
    assert load_sweep(runs, "b").resources.time_budget_h == 0
