"""Function calls as tasks on machines of a Ray cluster, one after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import ray
import ray.exceptions

from pipelines.ray_runtime.cluster import largest
from pipelines.ray_runtime.session import ray_session
from pipelines.ray_runtime.worker import start_worker
from preprocessing.schema import UserError

log = logging.getLogger(__name__)

Result = TypeVar("Result")
STARTS_AGAIN = 3
"""Times that a task whose worker or machine died is started again."""


def run_tasks(work: Sequence[Callable[[], Result]], *, address: str, cpus: float = 0, gpus: float = 0) -> list[Result]:
    """Call functions on machines that have so many CPUs (0: one beside a GPU, else all of the largest machine) and GPUs
    free. Returns what they returned. What they log is shown here.

    Raises UserError if there is no cluster at `address`, if a local one has less than that, if a task raised it, or if
    a task's worker died again and again.
    """
    with ray_session(address, worker_logs=True):
        cpus = cpus or (1 if gpus else largest("CPU"))
        if gpus > largest("GPU") or cpus > largest("CPU"):
            lack = f"no machine of the cluster has {cpus:g} CPUs and {gpus:g} GPUs"
            if address == "local":
                raise UserError(lack)
            log.info("%s: waiting for one to join", lack)
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=STARTS_AGAIN)(_task)
        return [_get(task.remote(each)) for each in work]


def _task(work: Callable[[], Result]) -> Result:
    start_worker()
    return work()


def _get(ref: Any) -> Any:
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None  # as it was raised in the worker, without Ray's trace around it
        raise
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"the worker died {STARTS_AGAIN + 1} times ({reason})") from None
