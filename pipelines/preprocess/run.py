"""Preprocessing from a request to a finished data set, or to an estimate of what that would cost."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipelines.preprocess.extract import extract
from pipelines.preprocess.request import Request
from pipelines.ray_runtime.session import check_address
from preprocessing.ffmpeg.program import ffmpeg_version, find_ffmpeg
from preprocessing.schema import Clip, UserError
from preprocessing.shards.build_index import build_index
from preprocessing.shards.planning.estimate import estimate_cost
from preprocessing.shards.planning.probe_boxes import probe_boxes
from preprocessing.shards.planning.worklist import open_worklist
from preprocessing.shards.statistics import summarise
from preprocessing.shards.storage import Store
from preprocessing.sources import measure_sources, resolve_source

log = logging.getLogger(__name__)


def preprocess(
    request: Request, *, retry_failed: bool = False, stop_if_alike: bool = True, ray_address: str | None = None
) -> dict[str, Any]:
    """Extract a data set, going on where an earlier run stopped. Returns the summary.

    `retry_failed`: only the clips that failed before. `stop_if_alike`: stop early if the first clips all fail for one
    reason. Raises UserError for what the user can mend. A clip that fails does not raise: it is counted in the summary.
    """
    started = time.monotonic()
    check_address(ray_address)  # before the clips are listed, which may take minutes
    log.info("ffmpeg %s (%s)", ffmpeg_version(), find_ffmpeg())
    with request.opened() as (job, clips):
        sizes = measure_sources(job.root, clips)
        if max(sizes) < 0:
            root = job.far.shown if job.far else job.root
            raise UserError(f"none of the {len(clips)} clips is below {root} ({_where_sought(job.root, clips[0])})")
        job.store.create()
        with _locked(job.store):
            job.store.remove_partials()
            work = open_worklist(job, clips, sizes, retry_failed=retry_failed)
            probe_boxes(job, work.open_plans)
            if job.shard_bytes:  # else nobody has estimated what sources become
                _say_if_full(job.store, sum(plan.packed_bytes for plan in work.open_plans))
            is_new = stop_if_alike and not work.finished
            written = extract(job, work.open_plans, ray_address=ray_address, stop_if_alike=is_new)
            records = {record.name: record for record in (*work.finished, *written)}
            index = build_index(job, clips, [records[plan.name] for plan in work.plans])
    times = {"shards_written": len(written), "wall_seconds": round(time.monotonic() - started, 1)}
    return summarise(index) | {"out": job.store.shown} | times


def estimate(request: Request) -> dict[str, Any]:
    """What `preprocess` would do and cost, from a sample of the clips. Writes nothing."""
    with request.opened() as (job, clips):
        facts = {"dataset": job.info.name, "annotations": job.info.annotations, "free_bytes": job.store.free_bytes()}
        return facts | estimate_cost(job, clips, measure_sources(job.root, clips))


def _where_sought(root: Path, clip: Clip) -> str:
    """Where a clip that is not there would be, or why it may not be read there."""
    try:
        resolve_source(root, clip.source)
    except ValueError as error:
        return f"{error}: make the folder that it lies in the data root, or copy it"
    return f"the first would be {clip.source}"


def _say_if_full(store: Store, expected_bytes: float) -> None:
    """Log it if what is to be written will hardly find room."""
    free_bytes = store.free_bytes()
    if free_bytes is not None and expected_bytes > free_bytes:
        sizes = f"about {expected_bytes / 1e9:.1f} GB of frames, and {free_bytes / 1e9:.1f} GB are free"
        log.warning("%s: %s (--frames-per-clip and --height make it less)", store.shown, sizes)


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
