"""Several workers that train one trial: what they do together, and what becomes of the trial if one of them dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from helpers.sweeping import assert_each_epoch_once, holder, settings, start, trials, wait_for
from helpers.tiny import STAGES
from pipelines.tracking.client import Tracker

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
TWO = ["--workers-per-trial", 2, "--cpus-per-worker", 1]


@pytest.fixture
def tiny(synthetic_shards: str, tiny_changes: dict[str, object]) -> list[str]:
    return ["--recipe", "demo", "--shards", synthetic_shards, *settings(tiny_changes)]


@pytest.mark.slow
def test_two_workers_train_every_stage(tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch is shared, which seven clips cannot be: that trial says so, and the other one is finished."""
    runs = tmp_path / "runs"
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "1")
    sweep = start(runs, *tiny, *TWO, "--name", "g", "--grid", "ppo.batch_size=8,7")
    assert sweep.wait(600) == 1, sweep.text
    found = {run.data.params["ppo.batch_size"]: run for run in trials(runs, "g")}
    assert found["8"].info.status == "FINISHED", sweep.text
    for number, stage in enumerate(STAGES):
        assert_each_epoch_once(runs, [found["8"]], f"{stage}/seconds", [1 + 2 * number, 2 + 2 * number])
    memory = "system_memory_usage_megabytes"
    (system,) = {key for key in found["8"].data.metrics if key.startswith("system/") and key.endswith(memory)}
    history = Tracker(runs).client.get_metric_history(found["8"].info.run_id, system)
    assert len({entry.step for entry in history}) == len(history) > 1  # the machine is told of once, not by both
    reason = "UserError: ppo.batch_size is 7, which 2 workers with ppo.accumulate=1 cannot share evenly"
    assert found["7"].info.status == "FAILED" and found["7"].data.tags["adafocus.reason"] == reason
    assert f"batch_size=7: FAILED: {reason}" in sweep.text
    kinds = sorted(path.parent.name.split("-")[0] for path in runs.glob("*-*/meta.json"))
    assert kinds == ["finetune", "ppo", "pretrain", "warmup"]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["holder", "other"])
def test_a_trial_goes_on_when_one_of_its_workers_is_killed(victim: str, tiny: list[str], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    longer = settings({"ppo.epochs": 40})
    sweep = start(runs, *tiny, *longer, *TWO, "--name", "g", "--grid", "ppo.gamma=0.5")
    wait_for(lambda: holder(runs, "ppo"), sweep, 400)
    first = holder(runs, "ppo") or 0
    workers = [each.pid for each in psutil.Process(first).parent().children() if "RayTrainWorker" in each.name()]
    others = [pid for pid in workers if pid != first]
    assert first in workers and len(others) == 1, workers
    os.kill(first if victim == "holder" else others[0], signal.SIGKILL)
    assert sweep.wait(600) == 0, sweep.text
    assert "ppo goes on from epoch" in sweep.text
    (trial,) = trials(runs, "g")
    assert trial.info.status == "FINISHED"
    assert_each_epoch_once(runs, [trial], "ppo/seconds", list(range(5, 45)))
