"""A real cluster of two nodes on one machine loses the node that holds a trial."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.training.reports import Options
from helpers.sweeping import assert_each_epoch_once, holder, wait_for
from pipelines.paths import Places
from pipelines.ray_runtime.resources import Resources
from pipelines.sweeps.driver import run_sweep
from pipelines.sweeps.search.space import Space
from pipelines.sweeps.sweep import Sweep
from pipelines.tracking.client import Tracker

pytestmark = pytest.mark.ray


def family(node: object) -> list[psutil.Process]:
    """A node's raylet and all that it started."""
    (raylet,) = [info.process for info in node.all_processes["raylet"]]
    return [*psutil.Process(raylet.pid).children(recursive=True), psutil.Process(raylet.pid)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_trial_goes_on_elsewhere_when_its_node_dies(
    tiny_config: Config, synthetic_shards: str, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    config = override(tiny_config, {"ppo.epochs": 60})
    places = Places.of(synthetic_shards, runs)
    sweep = Sweep("n", config, "demo", Space({"ppo.gamma": [0.5, 0.7]}), places, Options(device="cpu"))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": True})
    killed: list[int] = []
    try:
        doomed = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()

        def kill_the_node_with_a_trial() -> None:
            def victim() -> bool:
                pids = {process.pid for process in family(doomed)}
                markers = (runs / ".locks").glob("ppo-*.lock")
                texts = [marker.read_text() for marker in markers if (runs / f"{marker.stem}.partial").exists()]
                return any(f"\npid={pid}\n" in text for pid in pids for text in texts)

            wait_for(victim, timeout_s=300)
            for process in family(doomed):
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)

        killer = threading.Thread(target=kill_the_node_with_a_trial, daemon=True)
        killer.start()
        resources = Resources(cpus_per_worker=1, ray_address=cluster.address)
        outcome = run_sweep(replace(sweep, resources=resources))
        killer.join(1)
    finally:
        cluster.shutdown()
    assert killed, "no node was killed in mid-run"
    assert holder(runs, "ppo") is None
    assert [result.status for result in outcome.trials] == ["finished", "finished"]
    found = Tracker.at(places).find("trial", sweep="n")
    assert len(found) == 2 and all(run.info.status == "FINISHED" for run in found)
    assert_each_epoch_once(runs, found, "ppo/seconds", list(range(5, 65)))
