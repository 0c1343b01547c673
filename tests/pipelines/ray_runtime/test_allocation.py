"""What each worker of a sweep gets of a cluster: arithmetic over machines that are not here, and a Ray with GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from adafocus.config.schema import Config
from adafocus.training.reports import Options
from pipelines.paths import Places
from pipelines.ray_runtime.allocation import allocate, capacity, fit_resources
from pipelines.ray_runtime.cluster import Node
from pipelines.ray_runtime.resources import Resources
from pipelines.sweeps.driver import run_sweep
from pipelines.sweeps.search.space import Space
from pipelines.sweeps.sweep import Sweep
from pipelines.sweeps.workers.stage_worker import check_gpu
from pipelines.tracking.client import Tracker
from preprocessing.schema import UserError

BIG: Node = {"CPU": 64, "GPU": 4}


@pytest.mark.parametrize(
    ("asked", "trials", "nodes", "expected"),
    [
        # As many trials at once as there are GPUs: they have all the CPUs between them.
        ({"gpus_per_worker": 1}, 32, [BIG], (16, 4)),
        ({"gpus_per_worker": 1}, 8, [{"CPU": 16, "GPU": 1}], (16, 1)),
        ({"gpus_per_worker": 1, "workers_per_trial": 4}, 32, [BIG], (16, 1)),
        ({"gpus_per_worker": 0.5}, 32, [BIG], (8, 8)),
        ({"gpus_per_worker": 0.6}, 32, [BIG], (16, 4)),  # no worker has halves of two GPUs
        ({"gpus_per_worker": 2}, 32, [BIG], (32, 2)),
        ({"gpus_per_worker": 1}, 2, [BIG], (32, 2)),
        ({"gpus_per_worker": 1, "max_concurrent": 1}, 32, [BIG], (64, 1)),
        # Machines without GPUs have nothing to give; a worker has the CPUs of one machine only.
        ({"gpus_per_worker": 1}, 32, [BIG, {"CPU": 128}], (16, 4)),
        ({"gpus_per_worker": 1}, 32, [BIG, {"CPU": 8, "GPU": 4}], (2, 8)),
        ({"gpus_per_worker": 1, "workers_per_trial": 8}, 3, [BIG, BIG], (16, 1)),
        # Without GPUs.
        ({}, 2, [{"CPU": 2}], (1, 2)),
        ({}, 1, [{"CPU": 2}], (2, 1)),
        ({}, 3, [{"CPU": 8}], (2, 3)),
        ({}, 2, [{"CPU": 3}, {"CPU": 3}], (3, 2)),
        ({}, 3, [{"CPU": 3}, {"CPU": 3}], (1, 3)),
        ({"workers_per_trial": 2}, 9, [{"CPU": 2}], (1, 1)),
        ({"cpus_per_worker": 3}, 9, [{"CPU": 8}, {"CPU": 8}], (3, 4)),
        ({"cpus_per_worker": 0.5}, 9, [{"CPU": 2}], (0.5, 4)),
        # Nothing is there yet of a cluster that grows.
        ({"gpus_per_worker": 1}, 9, [{"CPU": 8}], (1, 1)),
        ({}, 9, [], (1, 1)),
    ],
)
def test_workers_have_all_that_the_machines_give(
    asked: dict[str, Any], trials: int, nodes: list[Node], expected: tuple[float, int]
) -> None:
    resources = Resources(**asked)
    cpus, at_once = allocate(resources, trials, nodes)
    assert (cpus, at_once) == expected
    fits = capacity(cpus, resources.gpus_per_worker, nodes)
    assert fits >= at_once * resources.workers_per_trial or fits == 0


@pytest.fixture(scope="module")
def four_gpus() -> Iterator[None]:
    """A Ray that believes in four GPUs."""
    ray.init(address="local", num_cpus=64, num_gpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def fit(device: str = "auto", **asked: float) -> Resources:
    return fit_resources(Resources(**asked), 32, device)


@pytest.mark.ray
def test_gpus_that_nobody_asked_for_are_refused(four_gpus: None) -> None:
    for device in ("auto", "cuda"):
        with pytest.raises(UserError, match=r"4 GPUs here.*--gpus-per-worker 1.*--device cpu") as raised:
            fit(device)
        assert "\n" not in str(raised.value)
    assert fit("cpu").cpus_per_worker == 2
    assert fit(gpus_per_worker=1) == Resources(gpus_per_worker=1, cpus_per_worker=16)


@pytest.mark.ray
def test_the_number_of_trials_at_once_is_limited_only_where_it_has_to_be(four_gpus: None) -> None:
    asked = Resources(gpus_per_worker=1)
    assert fit_resources(asked, 32, "auto").max_concurrent == 0
    assert fit_resources(asked, 32, "auto", limit_trials=True).max_concurrent == 4


@pytest.mark.ray
def test_a_trial_that_this_machine_cannot_hold_is_refused(four_gpus: None) -> None:
    with pytest.raises(UserError, match="a trial of 5 workers needs 5 GPUs, and this machine has 4"):
        fit(workers_per_trial=5, gpus_per_worker=1)
    with pytest.raises(UserError, match="a trial of 1 workers needs 65 CPUs, and this machine has 64"):
        fit("cpu", cpus_per_worker=65)


@pytest.mark.ray
def test_a_worker_whose_gpu_torch_cannot_see_says_so_at_once(
    four_gpus: None, synthetic_shards: str, tiny_config: Config, tmp_path: Path
) -> None:
    """It would train on the CPU for days. Ray believes in its GPUs, torch does not."""
    if torch.cuda.is_available():
        pytest.skip("torch sees a GPU here")
    space, places = Space({"ppo.gamma": [0.5, 0.7]}), Places.of(synthetic_shards, tmp_path)
    sweep = Sweep("s", tiny_config, "demo", space, places, resources=Resources(gpus_per_worker=1))
    with pytest.raises(UserError, match=r"Ray gave this worker on .* 1 GPUs, and torch .* finds none") as raised:
        run_sweep(sweep)
    assert "\n" not in str(raised.value)
    (parent,) = Tracker.at(places).find("sweep")
    assert parent.info.status == "FAILED"
    check_gpu(replace(sweep, options=Options(device="cpu")))
    check_gpu(replace(sweep, resources=Resources()))
