"""What a cluster has, and what of it each worker of a sweep gets."""

from __future__ import annotations

import os
from dataclasses import replace

import ray

from pipelines.ray_session import has_dashboard
from pipelines.sweep import Machines, Sweep
from preprocessing.schema import UserError


def fit_machines(sweep: Sweep) -> Machines:
    """What the cluster gives each worker, and how many trials run at once. Raises UserError if not one fits.

    A cluster that is joined may grow for those who wait: only one that was started here is known to be too small.
    """
    machines, workers = sweep.machines, sweep.machines.workers_per_trial
    total, trials = max(total_of("CPU"), 1), sweep.num_trials
    at_once = max(1, min(trials, machines.max_concurrent or trials, total // workers))
    cpus = machines.cpus_per_worker or max(1, min(total // (at_once * workers), largest("CPU")))
    needs = {"CPU": cpus * workers, "GPU": machines.gpus_per_worker * workers}
    for kind, need in needs.items():
        if need > total_of(kind) and started_here(machines):
            raise UserError(
                f"a trial of {workers} workers needs {need:g} {kind}s, and this machine has {total_of(kind)}"
            )
    if workers > 1:
        if not has_dashboard():
            raise UserError("--workers-per-trial needs Ray's dashboard: start the cluster with `ray start --head`")
        fits = [total_of(kind) // need for kind, need in needs.items() if need]
        at_once = max(1, int(min([at_once, *fits])))
    concurrent = at_once if workers > 1 or sweep.search == "optuna" else machines.max_concurrent
    return replace(machines, cpus_per_worker=cpus, max_concurrent=concurrent)


def largest(kind: str) -> int:
    """What the best machine has of a resource: a worker cannot have more."""
    return max((int(node["Resources"].get(kind, 0)) for node in ray.nodes() if node["Alive"]), default=0)


def started_here(machines: Machines) -> bool:
    """Is Ray started here, for this sweep?"""
    return not machines.ray_address and not os.environ.get("RAY_ADDRESS")


def total_of(kind: str) -> int:
    """What all machines have of a resource together."""
    return int(ray.cluster_resources().get(kind, 0))
