"""What a cluster has, and what of it each worker of a sweep gets."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

import ray

from pipelines.ray_runtime.session import has_dashboard
from pipelines.sweeps.sweep import Machines, Sweep
from preprocessing.schema import UserError

log = logging.getLogger(__name__)

Node = Mapping[str, float]
"""What one machine has: `CPU`, `GPU`."""


def fit_machines(sweep: Sweep) -> Machines:
    """What the cluster gives each worker, and how many trials run at once.

    Raises UserError if not one fits (but a cluster that is joined may grow for those who wait), and if there are GPUs
    that nobody asked for: Ray hides none of them from a trial that asks for none, so all would use the first.
    """
    machines, workers = sweep.machines, sweep.machines.workers_per_trial
    if total_of("GPU") and not machines.gpus_per_worker and sweep.options.device in ("auto", "cuda"):
        raise UserError(
            f"there are {total_of('GPU')} GPUs here, and every trial would use the first: give --gpus-per-worker 1 (or "
            "0.5 for two trials on each), or --device cpu"
        )
    cpus, at_once = share(machines, sweep.num_trials, nodes())
    needs = {"CPU": cpus * workers, "GPU": machines.gpus_per_worker * workers}
    for kind, need in needs.items():
        if need > total_of(kind) and started_here(machines):
            raise UserError(
                f"a trial of {workers} workers needs {need:g} {kind}s, and this machine has {total_of(kind)}"
            )
    if workers > 1 and not has_dashboard():
        raise UserError("--workers-per-trial needs Ray's dashboard: start the cluster with `ray start --head`")
    concurrent = at_once if workers > 1 or sweep.search == "optuna" else machines.max_concurrent
    return replace(machines, cpus_per_worker=cpus, max_concurrent=concurrent)


def share(machines: Machines, trials: int, nodes: Sequence[Node]) -> tuple[float, int]:
    """(CPUs of each worker, trials at once): as many trials as fit, each worker on one machine beside its GPUs, and
    then as many CPUs for each as leave room for all of them."""
    workers, given = machines.workers_per_trial, machines.cpus_per_worker
    wanted = min(trials, machines.max_concurrent or trials)
    at_once = max(1, min(wanted, room(given or 1, machines.gpus_per_worker, nodes) // workers))
    if given:
        return given, at_once
    most = max((int(node.get("CPU", 0)) for node in nodes), default=0)
    for cpus in range(most, 0, -1):
        if room(cpus, machines.gpus_per_worker, nodes) >= at_once * workers:
            return cpus, at_once
    log.info("no trial fits on the machines that are there now: each worker asks for 1 CPU (--cpus-per-worker)")
    return 1, at_once


def room(cpus: float, gpus: float, nodes: Sequence[Node]) -> int:
    """How many workers with so many CPUs and GPUs each fit at once."""
    return sum(min(int(node.get("CPU", 0) // cpus), _on_gpus(node.get("GPU", 0), gpus)) for node in nodes)


def _on_gpus(has: float, each: float) -> int:
    """Workers that fit on a machine's GPUs; those that share one have all of their share on the same."""
    if not each:
        return sys.maxsize
    return int(has) * int(1 / each) if each < 1 else int(has // each)


def nodes() -> list[Node]:
    """Every machine of the cluster."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def largest(kind: str) -> int:
    """What the best machine has of a resource: a worker cannot have more."""
    return max((int(node.get(kind, 0)) for node in nodes()), default=0)


def started_here(machines: Machines) -> bool:
    """Is Ray started here, for this sweep?"""
    return not machines.ray_address and not os.environ.get("RAY_ADDRESS")


def total_of(kind: str) -> int:
    """What all machines have of a resource together."""
    return int(ray.cluster_resources().get(kind, 0))
