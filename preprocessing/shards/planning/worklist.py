"""What is left to do of a job. Goes in: a job and its clips; comes out: the shards to write.

`plan.json`, written first, says what the output folder is for; a start with other settings or inputs is refused in
words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from preprocessing.clips import clips_digest
from preprocessing.schema import USABLE, Clip, UserError
from preprocessing.shards.index import INDEX, read_index, read_metadata
from preprocessing.shards.planning.estimate import estimate_packed_size
from preprocessing.shards.planning.job import Job
from preprocessing.shards.planning.plan import PackedSize, ShardPlan, plan_shards
from preprocessing.shards.record import ShardRecord
from preprocessing.shards.storage import Store

PLAN = "plan.json"


@dataclass(frozen=True, slots=True)
class Worklist:
    """All shards of a job, and those of them that are finished for certain."""

    plans: tuple[ShardPlan, ...]
    finished: tuple[ShardRecord, ...]
    """Shards that an index vouches for: nothing is left to do about them."""

    @property
    def open_plans(self) -> list[ShardPlan]:
        """Shards to write or to check, the biggest first, so that none is left running alone at the end."""
        done = {record.name for record in self.finished}
        return sorted((plan for plan in self.plans if plan.name not in done), key=lambda plan: -plan.num_bytes)


def open_worklist(job: Job, clips: Sequence[Clip], sizes: Sequence[int], *, retry_failed: bool = False) -> Worklist:
    """Find out what is left to do, and write down in the output folder what it is for.

    `sizes` are those of the clips' sources in bytes, -1 for missing ones. With `retry_failed` the failed clips of a
    finished data set get shards of their own; those that are still missing are left as they are. Raises UserError if
    the folder was made from something else.
    """
    store = job.store
    files = store.sizes()
    before = _read_plan(store) if PLAN in files else None
    job = job.planned(before and before["identity"])
    identity = job.identity(clips)
    if before is None:
        if INDEX in files:
            raise UserError(f"{store.shown} holds an {INDEX} without a {PLAN}; choose another --out")
        record: dict[str, Any] = {"identity": identity, "source_bytes": list(sizes), "retries": []}
        if job.shard_bytes:
            record["packed_size"] = asdict(estimate_packed_size(job, clips, sizes))
        store.write(json.dumps(record).encode(), PLAN)
    else:
        record = before
        _check_settings(store, record["identity"], identity, clips)
        _check_sources(store, record, clips, sizes, _failed(store, clips) if INDEX in files else set())
    plans = _plans(job, record, clips)
    finished = _finished(store, plans, files)
    if retry_failed:
        if INDEX not in files or len(finished) != len(plans):
            raise UserError(f"{store.shown} is not finished; run without --retry-failed first")
        failed = [row for row in sorted(_failed(store, clips)) if sizes[row] >= 0]
        if failed:
            record["retries"].append({"clips": failed, "source_bytes": [sizes[row] for row in failed]})
            store.write(json.dumps(record).encode(), PLAN)
            plans = _plans(job, record, clips)
    return Worklist(tuple(plans), tuple(finished))


def _read_plan(store: Store) -> dict[str, Any]:
    """What the folder was started for. Raises UserError if that cannot be read."""
    try:
        record: dict[str, Any] = json.loads(store.read(PLAN))
        _ = record["identity"]["clips"], record["source_bytes"], record["retries"]
        return record
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{store.shown}/{PLAN} cannot be read ({error!r}); choose another --out") from None


def _check_settings(store: Store, before: dict[str, Any], now: dict[str, Any], clips: Sequence[Clip]) -> None:
    for name in {**now, **before}:
        if name == "clips" and before.get(name) == clips_digest(clips, source_boxes=True):
            continue  # an earlier version's folder, where boxes counted; they are the same
        if before.get(name) != now.get(name):
            raise UserError(
                f"{store.shown} was started with {name} = {before.get(name)}, now it is {now.get(name)}; "
                "choose another --out (or remove that folder)"
            )


def _check_sources(
    store: Store, record: dict[str, Any], clips: Sequence[Clip], sizes: Sequence[int], failed: set[int]
) -> None:
    """Refuse sources of another size than when they were packed. Those that failed may be mended, any may be gone."""
    before = dict(enumerate(record["source_bytes"]))
    for retry in record["retries"]:
        before |= dict(zip(retry["clips"], retry["source_bytes"], strict=True))
    present = [row for row, size in enumerate(sizes) if row not in failed and min(before[row], size) >= 0]
    changed = [row for row in present if before[row] != sizes[row]]
    if changed:
        raise UserError(
            f"{len(changed)} source files have changed since {store.shown} was started "
            f"(first: {clips[changed[0]].source}); choose another --out (or remove that folder)"
        )


def _plans(job: Job, record: dict[str, Any], clips: Sequence[Clip]) -> list[ShardPlan]:
    packed = PackedSize(**record["packed_size"]) if "packed_size" in record else None
    limits = (job.clips_per_shard, job.shard_bytes, packed)
    plans = plan_shards(clips, record["source_bytes"], *limits)
    for retry in record["retries"]:
        again = [clips[row] for row in retry["clips"]]
        plans += plan_shards(again, retry["source_bytes"], *limits, first_number=len(plans))
    return plans


def _finished(store: Store, plans: Sequence[ShardPlan], files: dict[str, int]) -> list[ShardRecord]:
    """Shards that the index vouches for and whose tar has the recorded size. `files` are sizes by name."""
    if INDEX not in files:
        return []
    records = {record.name: record for record in read_metadata(store).shards}
    indexed = [records[plan.name] for plan in plans if plan.name in records and plan.rows in files]
    return [record for record in indexed if files.get(f"{record.name}.tar") == record.num_bytes]


def _failed(store: Store, clips: Sequence[Clip]) -> set[int]:
    """Positions of the clips that have no frames in a finished data set."""
    table = read_index(store, columns=["clip_id", "status"]).table
    status = dict(zip(table["clip_id"].to_pylist(), table["status"].to_pylist(), strict=True))
    return {row for row, clip in enumerate(clips) if status.get(clip.clip_id) not in USABLE}
