"""The share of a Ray cluster that each worker of a sweep gets."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace

from pipelines.ray_runtime.cluster import Node, has_dashboard, nodes, total_of
from pipelines.ray_runtime.resources import Resources
from preprocessing.schema import UserError

log = logging.getLogger(__name__)


def fit_resources(asked: Resources, trials: int, device: str, *, limit_trials: bool = False) -> Resources:
    """What is asked, with the CPUs that the cluster gives each worker, and the number of trials at once if that has to
    be limited: Ray itself starts as many as find room, but not so for groups of workers.

    Raises UserError if not one fits (but a cluster that is joined may grow for those who wait), and if there are GPUs
    that nobody asked for: Ray hides none of them from a trial that asks for none, so all would use the first.
    """
    workers = asked.workers_per_trial
    if total_of("GPU") and not asked.gpus_per_worker and device in ("auto", "cuda"):
        raise UserError(
            f"there are {total_of('GPU')} GPUs here, and every trial would use the first: give --gpus-per-worker 1 (or "
            "0.5 for two trials on each), or --device cpu"
        )
    cpus, at_once = allocate(asked, trials, nodes())
    for kind, need in {"CPU": cpus * workers, "GPU": asked.gpus_per_worker * workers}.items():
        if need > total_of(kind) and asked.starts_ray:
            raise UserError(
                f"a trial of {workers} workers needs {need:g} {kind}s, and this machine has {total_of(kind)}"
            )
    if workers > 1 and not has_dashboard():
        raise UserError("--workers-per-trial needs Ray's dashboard: start the cluster with `ray start --head`")
    concurrent = at_once if workers > 1 or limit_trials else asked.max_concurrent
    return replace(asked, cpus_per_worker=cpus, max_concurrent=concurrent)


def allocate(asked: Resources, trials: int, nodes: Sequence[Node]) -> tuple[float, int]:
    """(CPUs of each worker, trials at once): as many trials as fit, each worker on one machine beside its GPUs, and
    then as many CPUs for each as leave room for all of them."""
    workers, given = asked.workers_per_trial, asked.cpus_per_worker
    wanted = min(trials, asked.max_concurrent or trials)
    at_once = max(1, min(wanted, capacity(given or 1, asked.gpus_per_worker, nodes) // workers))
    if given:
        return given, at_once
    most = max((int(node.get("CPU", 0)) for node in nodes), default=0)
    for cpus in range(most, 0, -1):
        if capacity(cpus, asked.gpus_per_worker, nodes) >= at_once * workers:
            return cpus, at_once
    log.info("no trial fits on the machines that are there now: each worker asks for 1 CPU (--cpus-per-worker)")
    return 1, at_once


def capacity(cpus: float, gpus: float, nodes: Sequence[Node]) -> int:
    """How many workers with so many CPUs and GPUs each fit at once."""
    return sum(min(int(node.get("CPU", 0) // cpus), _on_gpus(node.get("GPU", 0), gpus)) for node in nodes)


def _on_gpus(has: float, each: float) -> int:
    """Workers that fit on a machine's GPUs; those that share one have all of their share on the same."""
    if not each:
        return sys.maxsize
    return int(has) * int(1 / each) if each < 1 else int(has // each)
