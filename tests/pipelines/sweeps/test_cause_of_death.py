"""How a trial ended, in the words of a Ray that has really killed it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import psutil
import pytest
import ray
from ray import tune

from pipelines.sweeps.outcome_callback import cause_of_death, count_memory_kills_as_deaths

pytestmark = pytest.mark.ray

GB = 1024**3


class Reasons(tune.Callback):
    def __init__(self) -> None:
        self.said: list[str] = []

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.said.append(cause_of_death(trial))


@pytest.mark.slow
def test_a_trial_that_ray_kills_for_its_memory_says_so(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own killing, with a limit 2 GB above what the machine uses now."""
    memory = psutil.virtual_memory()
    if memory.available < 10 * GB:
        pytest.skip("10 GB of free memory are needed, so that nobody else feels it")
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{(memory.total - memory.available + 2 * GB) / memory.total:.3f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")

    def take(config: dict[str, Any]) -> None:  # here, for workers do not find this module
        kept = []
        for _ in range(60 * config["hungry"]):  # no more than 6 GB
            kept.append(np.ones(1024**3 // 10, np.uint8))
            time.sleep(0.1)
        tune.report({"ended": True})

    reasons = Reasons()
    count_memory_kills_as_deaths()
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        results = tune.Tuner(
            take,
            param_space={"hungry": tune.grid_search([1, 0])},
            run_config=tune.RunConfig(
                storage_path=str(tmp_path),
                failure_config=tune.FailureConfig(max_failures=0),
                callbacks=[reasons],
                verbose=0,
            ),
        ).fit()
    finally:
        ray.shutdown()
    (reason,) = reasons.said
    assert "memory" in reason and len(reason) <= 200
    assert [result.error is None for result in results] == [False, True]  # the other one went on
