"""Trains the stages that all trials of a sweep share, in one Ray task, before any trial begins."""

from __future__ import annotations

import logging
import time

import ray

from adafocus import checkpoint
from adafocus.divergence import DivergedError
from adafocus.training.reports import EpochReport
from pipelines.logs import in_a_line
from pipelines.ray_runtime.cluster import largest
from pipelines.sweeps.outcomes import BUDGET_ENDED
from pipelines.sweeps.sweep import Sweep
from pipelines.sweeps.workers.outages import OutageError
from pipelines.sweeps.workers.stage_worker import train_shared
from pipelines.tracking.run import Run
from pipelines.training.train import to_mlflow
from preprocessing.schema import UserError

log = logging.getLogger(__name__)


def train_shared_stages(sweep: Sweep, parent: Run, deadline: float | None) -> bool:
    """Train the shared stages on a whole machine, or on a trial's share of GPUs; `parent` is the sweep's run.

    Returns whether they are finished: False if the time budget ended before. Raises UserError if they failed.
    """
    folders = sweep.folders({}, sweep.version)[: len(sweep.shared)]
    parent.set_stages(folders)
    if all((folder / checkpoint.META).exists() for folder in folders):
        for meta in map(checkpoint.read_meta, folders):
            to_mlflow(parent, meta.info["metric"])([EpochReport(**row) for row in meta.history])
        return True
    names = ", ".join(sweep.shared)
    log.info("stages that all trials share: %s", names)
    task = _start_task(sweep, parent)
    timeout = None if deadline is None else max(deadline - time.monotonic(), 1)
    try:
        ray.get(task, timeout=timeout)
    except ray.exceptions.GetTimeoutError:
        log.info("%s in the stages that all trials share", BUDGET_ENDED)
        ray.cancel(task)
        return False
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None  # as it was raised in the worker, without Ray's trace around it
        if not isinstance(error.cause, OSError | MemoryError | DivergedError | OutageError):
            log.error("%s", error)  # where in the code it happened
        raise UserError(f"the stages that all trials share ({names}) failed: {in_a_line(error.cause)}") from None
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"the worker that trained the stages which all trials share died {sweep.resources.max_failures + 1} times "
            f"({reason}); --resume {sweep.name} goes on"
        ) from None
    return True


def _start_task(sweep: Sweep, parent: Run) -> ray.ObjectRef:
    """Start the task. A group of workers has resources of its own: its task only waits for them, and asks for none."""
    resources = sweep.resources
    group = resources.workers_per_trial > 1
    cpus = resources.cpus_per_worker if resources.gpus_per_worker else largest("CPU")
    remote = ray.remote(
        num_cpus=0 if group else cpus,
        num_gpus=0 if group else resources.gpus_per_worker,
        max_retries=resources.max_failures,
        retry_exceptions=[OutageError],
    )(train_shared)
    return remote.remote(sweep, parent.run_id)
