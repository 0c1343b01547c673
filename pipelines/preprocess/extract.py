"""Shards as Ray tasks, bounded in flight; the tasks themselves commit what they write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray

from pipelines.preprocess.common_failure import CommonFailure
from pipelines.preprocess.tally import Tally
from pipelines.progress import progress
from pipelines.ray_runtime.session import ray_session
from preprocessing.schema import UserError
from preprocessing.shards.planning.job import Job
from preprocessing.shards.planning.plan import ShardPlan
from preprocessing.shards.record import ShardRecord, finished_record
from preprocessing.shards.writer import write_shard

TASKS_PER_CPU = 2
"""Tasks in flight per CPU of the cluster: enough to keep it busy, few enough to stop quickly."""
LOST_NODE_RETRIES = 5


def extract(
    job: Job, plans: list[ShardPlan], *, ray_address: str | None = None, stop_if_alike: bool = False
) -> list[ShardRecord]:
    """Write shards of a job as Ray tasks. Returns their records. Frames never pass through Ray's object store.

    Raises UserError if a shard cannot be written; the others are finished first. With `stop_if_alike` also, and at
    once, if all clips of the first shards failed for one and the same reason.
    """
    if not plans:
        return []
    with ray_session(ray_address) as ours:
        task = ray.remote(num_cpus=1, max_retries=LOST_NODE_RETRIES)(_shard_task)
        shared_job = ray.put(job)

        def width() -> int:  # asked again and again, for nodes come and go
            return max(1, int(TASKS_PER_CPU * ray.cluster_resources().get("CPU", 1)))

        alike = CommonFailure(job.store) if stop_if_alike else None
        return _drive(plans, lambda plan: task.remote(shared_job, plan), width, alike, cancel=not ours)


def _shard_task(job: Job, plan: ShardPlan) -> ShardRecord | str:
    """One shard, on some worker. A trouble of the disk comes back as words, for another worker would have it too."""
    try:
        return finished_record(job, plan) or write_shard(job, plan)
    except UserError as error:
        return str(error)


def _drive(
    plans: list[ShardPlan],
    submit: Callable[[ShardPlan], Any],
    width: Callable[[], int],
    alike: CommonFailure | None,
    *,
    cancel: bool,
) -> list[ShardRecord]:
    """Keep `width()` tasks in flight until all plans are done, and show the progress. `cancel`: end the tasks that are
    left if this process is interrupted."""
    waiting = list(reversed(plans))
    running: dict[Any, ShardPlan] = {}
    written: list[ShardRecord] = []
    troubles: list[str] = []
    tally = Tally(sum(len(plan.clips) for plan in plans))
    with progress(sum(_work(plan) for plan in plans)) as report:
        try:
            while waiting or running:
                while waiting and len(running) < width() and not troubles:
                    plan = waiting.pop()
                    running[submit(plan)] = plan
                if not running:
                    break
                done, _ = ray.wait(list(running), timeout=1.0)
                for ref in done:
                    plan = running.pop(ref)
                    try:
                        result = ray.get(ref)
                    except ray.exceptions.RayError as error:
                        result = f"{plan.name}: {str(error).strip().splitlines()[-1]}"
                    if isinstance(result, str):
                        troubles.append(result)
                    else:
                        written.append(result)
                        report(_work(plan), tally.add(result))
                        if alike and (reason := alike.add(result)) and (waiting or running):
                            raise UserError(f"{reason}; nothing more was tried (--max-failures 100% goes on)")
        except BaseException:
            # A Ray of our own is shut down, which ends its tasks. Never by force: in Ray 2.60 a forced cancel that
            # meets a task just finishing aborts the driver ("Tried to complete task that was not pending").
            for ref in running if cancel else ():
                ray.cancel(ref)
            raise
    if troubles:
        raise UserError(f"{len(troubles)} shards could not be written; {troubles[0]}")
    return written


def _work(plan: ShardPlan) -> int:
    """About how long a shard takes: the bytes of its sources, which may all be missing."""
    return max(plan.num_bytes, 1)
