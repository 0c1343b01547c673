"""What is left to do in an output folder. Goes in: clips and settings; comes out: the shards to write.

`plan.json`, written first, says what the folder is for; a start with other settings or inputs is refused in words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from preprocessing.clips import clips_digest, source_bytes
from preprocessing.schema import SPLITS, USABLE, Clip, DatasetInfo, ExtractionSpec, UserError
from preprocessing.shards.index import INDEX, read_index
from preprocessing.shards.storage import Store
from preprocessing.shards.writer import ShardPlan, ShardRecord, plan_shards, read_shard_record, shard_problem

PLAN = "plan.json"


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that one run of preprocessing does."""

    info: DatasetInfo
    clips: tuple[Clip, ...]
    root: Path
    spec: ExtractionSpec
    plans: tuple[ShardPlan, ...]
    finished: tuple[ShardRecord, ...]
    """Shards that an index vouches for: nothing is left to do about them."""
    drop_damaged: bool = False

    @property
    def open_plans(self) -> list[ShardPlan]:
        """Shards to write or to check, the biggest first, so that none is left running alone at the end."""
        done = {record.name for record in self.finished}
        return sorted((plan for plan in self.plans if plan.name not in done), key=lambda plan: -plan.num_bytes)


def select_clips(clips: Sequence[Clip], splits: Sequence[str] | None, limit: int | None) -> list[Clip]:
    """Clips of the chosen splits, at most `limit` of each split (the first ones). Raises UserError if none is left."""
    unknown = [split for split in splits or () if split not in SPLITS]
    if unknown:
        raise UserError(f"unknown split {unknown[0]!r}; known are {', '.join(SPLITS)}")
    counts: dict[str, int] = {}
    chosen = []
    for clip in clips:
        if splits and clip.split not in splits:
            continue
        counts[clip.split] = counts.get(clip.split, 0) + 1
        if limit is None or counts[clip.split] <= limit:
            chosen.append(clip)
    if not chosen:
        present = ", ".join(sorted({clip.split for clip in clips})) or "none"
        raise UserError(f"no clips left: the data set has the splits {present}, chosen were {splits or 'all'}")
    return chosen


def measure_sources(root: Path, clips: Sequence[Clip]) -> list[int]:
    """Bytes of each clip's source, -1 where it is missing."""
    with ThreadPoolExecutor(16) as pool:  # a network disk answers many questions at once
        return list(pool.map(lambda clip: source_bytes(root, clip), clips, chunksize=256))


def open_job(
    store: Store,
    root: Path,
    info: DatasetInfo,
    clips: Sequence[Clip],
    sizes: Sequence[int],
    spec: ExtractionSpec,
    *,
    clips_per_shard: int,
    drop_damaged: bool = False,
    retry_failed: bool = False,
) -> Job:
    """Find out what is left to do in `store`, and write down there what it is for.

    With `retry_failed` the failed clips of a finished data set get shards of their own; those that are still missing
    are left as they are. Raises UserError if the folder was made from something else.
    """
    identity = {
        "dataset": info.name,
        "annotations": info.annotations,
        "clips": clips_digest(clips),
        "num_clips": len(clips),
        "clips_per_shard": clips_per_shard,
        "drop_damaged": drop_damaged,
        **asdict(spec),
    }
    listing = store.sizes()
    if PLAN not in listing:
        if INDEX in listing:
            raise UserError(f"{store.shown} holds an {INDEX} without a {PLAN}; choose another --out")
        told: dict[str, Any] = {"identity": identity, "source_bytes": list(sizes), "retries": []}
        store.write(json.dumps(told).encode(), PLAN)
    else:
        told = json.loads(store.read(PLAN))
        _compare_settings(store, told["identity"], identity)
        _compare_sources(store, told, clips, sizes, _failed(store, clips) if INDEX in listing else set())
    plans = _plans(told, clips, clips_per_shard)
    finished = _finished(store, plans, listing)
    if retry_failed:
        if INDEX not in listing or len(finished) != len(plans):
            raise UserError(f"{store.shown} is not finished; run without --retry-failed first")
        failed = [row for row in sorted(_failed(store, clips)) if sizes[row] >= 0]
        if failed:
            told["retries"].append({"clips": failed, "source_bytes": [sizes[row] for row in failed]})
            store.write(json.dumps(told).encode(), PLAN)
            plans = _plans(told, clips, clips_per_shard)
    return Job(info, tuple(clips), root, spec, tuple(plans), tuple(finished), drop_damaged)


def _compare_settings(store: Store, before: dict[str, Any], now: dict[str, Any]) -> None:
    for name, value in now.items():
        if before.get(name) != value:
            raise UserError(
                f"{store.shown} was started with {name} = {before.get(name)}, now it is {value}; "
                "choose another --out (or remove that folder)"
            )


def _compare_sources(
    store: Store, told: dict[str, Any], clips: Sequence[Clip], sizes: Sequence[int], failed: set[int]
) -> None:
    """Refuse sources of another size than when they were packed. Those that failed may be mended, any may be gone."""
    before = dict(enumerate(told["source_bytes"]))
    for retry in told["retries"]:
        before |= dict(zip(retry["clips"], retry["source_bytes"], strict=True))
    changed = [row for row, size in enumerate(sizes) if row not in failed and min(before[row], size) >= 0]
    changed = [row for row in changed if before[row] != sizes[row]]
    if changed:
        raise UserError(
            f"{len(changed)} source files have changed since {store.shown} was started "
            f"(first: {clips[changed[0]].source}); choose another --out (or remove that folder)"
        )


def _plans(told: dict[str, Any], clips: Sequence[Clip], clips_per_shard: int) -> list[ShardPlan]:
    plans = plan_shards(clips, told["source_bytes"], clips_per_shard)
    for retry in told["retries"]:
        again = [clips[row] for row in retry["clips"]]
        plans += plan_shards(again, retry["source_bytes"], clips_per_shard, first_number=len(plans))
    return plans


def _finished(store: Store, plans: Sequence[ShardPlan], listing: dict[str, int]) -> list[ShardRecord]:
    """Shards that the index vouches for and whose tar has the recorded size."""
    if INDEX not in listing:
        return []
    records = {record.name: record for record in read_index(store, columns=[]).shards}
    whole = [records[plan.name] for plan in plans if plan.name in records and plan.rows in listing]
    return [record for record in whole if listing.get(f"{record.name}.tar") == record.num_bytes]


def _failed(store: Store, clips: Sequence[Clip]) -> set[int]:
    """Positions of the clips that have no frames in a finished data set."""
    table = read_index(store, columns=["clip_id", "status"]).table
    status = dict(zip(table["clip_id"].to_pylist(), table["status"].to_pylist(), strict=True))
    return {row for row, clip in enumerate(clips) if status.get(clip.clip_id) not in USABLE}


def reusable(store: Store, plan: ShardPlan, spec: ExtractionSpec) -> ShardRecord | None:
    """Record of a shard that an earlier run finished: its rows are those of the plan, its tar has the recorded hash."""
    found = read_shard_record(store, plan.name)
    if found is None:
        return None
    record, told = found
    if told["spec"] != asdict(spec) or record.num_clips != len(plan.clips):
        return None
    return None if shard_problem(store, plan.name, record) else record
