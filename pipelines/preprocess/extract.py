"""Run preprocessing on Ray: shards as tasks, bounded in flight, results committed by the tasks themselves.

Goes in: a Job; comes out: a finished data set and its summary. The only file of the data half that imports Ray.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from filelock import FileLock, Timeout

from pipelines.progress import progress
from pipelines.ray_runtime.session import ray_session
from preprocessing.clips import measure_sources, select_clips
from preprocessing.datasets import find_dataset
from preprocessing.media.extraction import DEFAULT_LIMITS, Limits
from preprocessing.schema import USABLE, Clip, DatasetInfo, ExtractionSpec, UserError
from preprocessing.shards.build_index import build_index
from preprocessing.shards.estimate import estimate_cost
from preprocessing.shards.job import Job
from preprocessing.shards.plan import ShardPlan
from preprocessing.shards.record import ShardRecord, finished_record
from preprocessing.shards.statistics import summarise
from preprocessing.shards.storage import Store
from preprocessing.shards.worklist import open_worklist
from preprocessing.shards.writer import write_shard

TASKS_PER_CPU = 2
"""Tasks in flight per CPU of the cluster: enough to keep it busy, few enough to stop quickly."""
LOST_NODE_RETRIES = 5


def preprocess(
    dataset: str,
    data_root: Path,
    out: str,
    *,
    spec: ExtractionSpec,
    splits: list[str] | None = None,
    limit: int | None = None,
    clips_per_shard: int = 64,
    limits: Limits = DEFAULT_LIMITS,
    drop_damaged: bool = False,
    retry_failed: bool = False,
    ray_address: str | None = None,
) -> dict[str, Any]:
    """Extract a data set into `out` (a folder or URL), going on where an earlier run stopped. Returns the summary.

    Raises UserError for what the user can mend. A clip that fails does not raise: it is counted in the summary.
    """
    started = time.monotonic()
    info, clips = _read_clips(dataset, data_root, splits, limit)
    job = Job(Store(out), data_root.absolute(), info, spec, clips_per_shard, limits, drop_damaged)
    sizes = measure_sources(data_root, clips)
    if max(sizes) < 0:
        raise UserError(f"none of the {len(clips)} clips is below {data_root} (the first would be {clips[0].source})")
    job.store.create()
    with _locked(job.store):
        job.store.remove_partials()
        work = open_worklist(job, clips, sizes, retry_failed=retry_failed)
        written = extract(job, work.open_plans, ray_address=ray_address)
        records = {record.name: record for record in (*work.finished, *written)}
        index = build_index(job, clips, [records[plan.name] for plan in work.plans])
    times = {"shards_written": len(written), "wall_seconds": round(time.monotonic() - started, 1)}
    return summarise(index) | {"out": job.store.shown} | times


def estimate(
    dataset: str,
    data_root: Path,
    out: str,
    *,
    spec: ExtractionSpec,
    splits: list[str] | None = None,
    limit: int | None = None,
    clips_per_shard: int = 64,
) -> dict[str, Any]:
    """What `preprocess` would do and cost, from a sample of the clips. Writes nothing."""
    info, clips = _read_clips(dataset, data_root, splits, limit)
    job = Job(Store(out), data_root.absolute(), info, spec, clips_per_shard)
    facts = {"dataset": info.name, "annotations": info.annotations, "free_bytes": job.store.free_bytes()}
    return facts | estimate_cost(job, clips, measure_sources(data_root, clips))


def _read_clips(
    dataset: str, data_root: Path, splits: list[str] | None, limit: int | None
) -> tuple[DatasetInfo, list[Clip]]:
    entry = find_dataset(dataset)
    entry.make(data_root)
    if not data_root.is_dir():
        raise UserError(f"the data root {data_root} does not exist; give the folder of the videos as --data-root")
    info, clips = entry.read_clips(data_root)
    return info, select_clips(clips, splits, limit)


def extract(job: Job, plans: list[ShardPlan], *, ray_address: str | None = None) -> list[ShardRecord]:
    """Write shards of a job as Ray tasks. Returns their records. Frames never pass through Ray's object store.

    Raises UserError if a shard cannot be written; the others are finished first.
    """
    if not plans:
        return []
    with ray_session(ray_address) as ours:
        task = ray.remote(num_cpus=1, max_retries=LOST_NODE_RETRIES)(_shard_task)
        shared_job = ray.put(job)

        def width() -> int:  # asked again and again, for nodes come and go
            return max(1, int(TASKS_PER_CPU * ray.cluster_resources().get("CPU", 1)))

        return _drive(plans, lambda plan: task.remote(shared_job, plan), width, cancel=not ours)


def _shard_task(job: Job, plan: ShardPlan) -> ShardRecord | str:
    """One shard, on some worker. A trouble of the disk comes back as words, for another worker would have it too."""
    try:
        return finished_record(job, plan) or write_shard(job, plan)
    except UserError as error:
        return str(error)


def _drive(
    plans: list[ShardPlan], submit: Callable[[ShardPlan], Any], width: Callable[[], int], *, cancel: bool
) -> list[ShardRecord]:
    waiting = list(reversed(plans))
    running: dict[Any, ShardPlan] = {}
    written: list[ShardRecord] = []
    troubles: list[str] = []
    tally = _Tally(sum(len(plan.clips) for plan in plans))
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
        except BaseException:
            # A Ray of our own is shut down, which ends its tasks. Never by force: in Ray 2.60 a forced cancel that
            # meets a task just finishing aborts the driver ("Tried to complete task that was not pending").
            for ref in running if cancel else ():
                ray.cancel(ref)
            raise
    if troubles:
        raise UserError(f"{len(troubles)} shards could not be written; {troubles[0]}")
    return written


@contextlib.contextmanager
def _locked(store: Store) -> Iterator[None]:
    """Only one run at a time writes into a folder. The lock ends with its process, even a killed one."""
    if store.local is None:
        yield
        return
    try:
        with FileLock(store.local / ".lock", timeout=0):
            yield
    except Timeout:
        raise UserError(f"another run is writing to {store.shown}; wait for it or choose another --out") from None


def _work(plan: ShardPlan) -> int:
    """About how long a shard takes: the bytes of its sources, which may all be missing."""
    return max(plan.num_bytes, 1)


class _Tally:
    """What has been extracted so far, in words."""

    def __init__(self, num_clips: int) -> None:
        self._num_clips, self._started = num_clips, time.monotonic()
        self._done = self._failed = self._frames = 0

    def add(self, record: ShardRecord) -> str:
        """Count a finished shard; how far the work is by now."""
        self._done += record.num_clips
        self._failed += sum(number for status, number in record.statuses.items() if status not in USABLE)
        self._frames += record.num_frames
        elapsed_s = time.monotonic() - self._started
        return (
            f"{self._done}/{self._num_clips} clips, {self._failed} failed, "
            f"{self._done / elapsed_s:.1f} clips/s, {self._frames / elapsed_s:.0f} frames/s"
        )


def describe(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary as flat names and plain values, for a tracker."""
    flat = {key: value for key, value in summary.items() if not isinstance(value, dict)}
    flat |= {f"status/{name}": number for name, number in summary["statuses"].items()}
    return flat | {f"spec/{name}": value for name, value in summary["spec"].items()}
