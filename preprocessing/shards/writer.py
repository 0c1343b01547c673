"""Plan shards and write them. Goes in: clips; comes out: per shard a plain tar of JPEGs and a Parquet file of rows.

A shard is a WebDataset tar: members `{key}.{frame:06d}.jpg`, 1-based, then `{key}.json`. The key is shard and position,
never the clip id, for readers split a name at its first dot. Fixed owner and time stamps: same input, same bytes.
"""

from __future__ import annotations

import errno
import hashlib
import heapq
import io
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing.clips import resolve_source
from preprocessing.media.ffmpeg import (
    DEFAULT_LIMITS,
    Extraction,
    FrameStream,
    Limits,
    extract_frames,
    extraction_argv,
    ffmpeg_version,
)
from preprocessing.media.frame_folder import FrameFolder
from preprocessing.schema import INDEX_SCHEMA, METADATA_KEY, MIN_FRAMES, USABLE, Clip, ExtractionSpec, UserError
from preprocessing.shards.archive import TarStream
from preprocessing.shards.storage import Store


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One shard to write. `num_bytes` is the size of its sources, what the plan balances."""

    number: int
    split: str
    clips: tuple[Clip, ...]
    num_bytes: int

    @property
    def name(self) -> str:
        """File name without extension."""
        return f"{self.split}-{self.number:06d}"

    @property
    def tar(self) -> str:
        return f"{self.name}.tar"

    @property
    def rows(self) -> str:
        return f"{self.name}.parquet"


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """What a finished shard is recognised by."""

    name: str
    num_clips: int
    num_bytes: int
    sha256: str
    statuses: dict[str, int]
    num_frames: int


def plan_shards(
    clips: Sequence[Clip], sizes: Sequence[int], clips_per_shard: int, first_number: int = 0
) -> list[ShardPlan]:
    """Deal clips to shards: per split ceil(n / clips_per_shard) shards of nearly equal bytes, the same every time.

    The largest clip goes to the lightest shard that has room, and so on down. Clips keep their order within a shard.
    """
    if clips_per_shard < 1:
        raise ValueError(f"clips_per_shard is {clips_per_shard}, has to be at least 1")
    plans: list[ShardPlan] = []
    for split in dict.fromkeys(clip.split for clip in clips):
        members = [index for index, clip in enumerate(clips) if clip.split == split]
        num_shards = -(-len(members) // clips_per_shard)
        shards: list[list[int]] = [[] for _ in range(num_shards)]
        lightest = [(0, shard) for shard in range(num_shards)]
        for index in sorted(members, key=lambda member: (-sizes[member], member)):
            load, shard = heapq.heappop(lightest)
            shards[shard].append(index)
            if len(shards[shard]) < clips_per_shard:
                heapq.heappush(lightest, (load + max(sizes[index], 0), shard))
        for shard_clips in shards:
            plans.append(
                ShardPlan(
                    number=first_number + len(plans),
                    split=split,
                    clips=tuple(clips[index] for index in sorted(shard_clips)),
                    num_bytes=sum(max(sizes[index], 0) for index in shard_clips),
                )
            )
    return plans


def shard_key(number: int, position: int) -> str:
    """Prefix of a clip's members: shard and position, sortable, without dots."""
    return f"{number:06d}_{position:05d}"


def write_shard(
    plan: ShardPlan,
    root: Path,
    spec: ExtractionSpec,
    store: Store,
    *,
    limits: Limits = DEFAULT_LIMITS,
    drop_damaged: bool = False,
) -> ShardRecord:
    """Extract the clips of `plan` into `{name}.tar`, then write `{name}.parquet`, which makes the shard finished.

    A clip that fails costs its row only. Raises UserError if there is no space left, OSError for other troubles of
    the disk.
    """
    rows: list[dict[str, Any]] = []
    try:
        with store.atomic_write(plan.tar) as partial, open(partial, "wb") as file:
            tar = TarStream(file)
            for position, clip in enumerate(plan.clips):
                rows.append(_write_clip(tar, plan, position, clip, root, spec, limits, drop_damaged))
            sha256 = tar.close()
        record = _record(plan, rows, tar.offset, sha256)
        store.write(_rows_file(rows, record, spec), plan.rows)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"no space left for {store.shown}/{plan.tar}: free some and start again") from None
        raise
    return record


def _write_clip(
    tar: TarStream,
    plan: ShardPlan,
    position: int,
    clip: Clip,
    root: Path,
    spec: ExtractionSpec,
    limits: Limits,
    drop_damaged: bool,
) -> dict[str, Any]:
    started, mark, key = time.monotonic(), tar.mark(), shard_key(plan.number, position)
    sizes: list[int] = []
    first_offset: int | None = None
    try:
        path = resolve_source(root, clip.source)
        if not (path.is_dir() if clip.source_kind == "frames" else path.is_file()):
            result = Extraction("missing", f"{clip.source} is not below the data root")
        else:
            with open_frames(path, clip, spec, limits) as stream:
                for jpeg in stream:
                    offset = tar.add(f"{key}.{len(sizes) + 1:06d}.jpg", jpeg)
                    first_offset = offset if first_offset is None else first_offset
                    sizes.append(len(jpeg))
            result = stream.result
    except ValueError as error:
        result = Extraction("missing", str(error))
    status, error_text = result.status, result.error
    if status in USABLE and len(sizes) < MIN_FRAMES:
        status, error_text = "too_short", f"{len(sizes)} frames, {MIN_FRAMES} are the least"
    elif status == "damaged" and drop_damaged:
        status, error_text = "decode_failed", f"damaged and left out: {error_text}"
    usable = status in USABLE
    row: dict[str, Any] = {
        "clip_id": clip.clip_id,
        "split": clip.split,
        "labels": list(clip.labels),
        "source": clip.source,
        "shard": plan.tar,
        "key": key,
        "status": status,
        "error": error_text,
        "num_frames": len(sizes) if usable else 0,
        "listed_frames": clip.listed_frames,
        "fps": result.fps,
        "height": result.height,
        "width": result.width,
        "duration_s": result.duration_s,
    }
    if usable:
        tar.add(f"{key}.json", json.dumps(row, sort_keys=True, ensure_ascii=False).encode())
    else:
        tar.back_to(mark)
    boxes = clip.boxes if usable and clip.boxes and len(clip.boxes) == len(sizes) else None
    return row | {
        "first_offset": first_offset if usable else None,
        "frame_sizes": sizes if usable else [],
        "num_bytes": sum(sizes) if usable else 0,
        "seconds": round(time.monotonic() - started, 3),
        "boxes": boxes,
    }


def open_frames(path: Path, clip: Clip, spec: ExtractionSpec, limits: Limits) -> FrameStream | FrameFolder:
    """The frames of a clip, from a video or from a folder: a context manager to iterate, then `.result`."""
    if clip.source_kind == "frames":
        return FrameFolder(path, spec)
    return extract_frames(path, spec, start_s=clip.start_s, end_s=clip.end_s, limits=limits)


def _record(plan: ShardPlan, rows: list[dict[str, Any]], num_bytes: int, sha256: str) -> ShardRecord:
    statuses: dict[str, int] = {}
    for row in rows:
        statuses[row["status"]] = statuses.get(row["status"], 0) + 1
    frames = sum(row["num_frames"] for row in rows)
    return ShardRecord(plan.name, len(rows), num_bytes, sha256, statuses, frames)


def _rows_file(rows: list[dict[str, Any]], record: ShardRecord, spec: ExtractionSpec) -> bytes:
    told = {
        "shard": asdict(record),
        "spec": asdict(spec),
        "versions": {"ffmpeg": ffmpeg_version()},
        "argv": ["ffmpeg", *extraction_argv("SOURCE", spec)[1:]],
    }
    schema = INDEX_SCHEMA.with_metadata({METADATA_KEY: json.dumps(told, sort_keys=True).encode()})
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer, compression="zstd")
    return buffer.getvalue()


def read_shard_record(store: Store, name: str) -> tuple[ShardRecord, dict[str, Any]] | None:
    """Record of a finished shard and the rest of what its rows file tells; None if that cannot be read."""
    try:
        with store.open(f"{name}.parquet") as file:
            told = json.loads(pq.read_schema(file).metadata[METADATA_KEY])
        return ShardRecord(**told["shard"]), told
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowInvalid):
        return None


def shard_problem(store: Store, plan_name: str, record: ShardRecord) -> str:
    """Why a shard's tar is not what `record` says: size, then hash of all bytes. Empty if it is."""
    try:
        with store.open(f"{plan_name}.tar") as file:
            if file.size() != record.num_bytes:
                return f"{file.size()} bytes, {record.num_bytes} recorded"
            state = hashlib.sha256()
            while chunk := file.read(8 << 20):
                state.update(chunk)
    except OSError as error:
        return f"cannot be read: {error}"
    return "" if state.hexdigest() == record.sha256 else "its bytes have changed (SHA-256 differs)"
