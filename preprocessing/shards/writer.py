"""Write one shard. Goes in: a job and the plan of a shard; comes out: a plain tar of JPEGs and a Parquet file of rows.

A shard is a WebDataset tar: members `{key}.{frame:06d}.jpg`, 1-based, then `{key}.json`. The key is shard and position,
never the clip id, for readers split a name at its first dot. Fixed owner and time stamps: same input, same bytes.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preprocessing.frame_choice import packing_rule
from preprocessing.media.extraction import Extraction
from preprocessing.media.frames import open_frames
from preprocessing.media.sampled import sample_frames
from preprocessing.schema import MIN_FRAMES, USABLE, Clip, UserError
from preprocessing.shards.archive import TarStream
from preprocessing.shards.object_boxes import upright_size
from preprocessing.shards.planning.job import Job
from preprocessing.shards.planning.plan import ShardPlan, shard_key
from preprocessing.shards.record import ShardRecord, write_rows

_WRITTEN_AT_ONCE = 1 << 20


def write_shard(job: Job, plan: ShardPlan) -> ShardRecord:
    """Extract the clips of `plan` into `{name}.tar`, then write `{name}.parquet`, which makes the shard finished.

    A clip that fails costs its row only. Raises UserError if there is no space left, OSError for other troubles of the
    disk. Objects' boxes are none of a shard's business: the index has them.
    """
    try:
        with job.store.atomic_write(plan.tar) as partial, open(partial, "wb", _WRITTEN_AT_ONCE) as file:
            tar = TarStream(file)
            rows = [_write_clip(job, plan, position, tar) for position in range(len(plan.clips))]
            sha256 = tar.close()
        return write_rows(job, plan, rows, tar.offset, sha256)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"no space left for {job.store.shown}/{plan.tar}: free some and start again") from None
        raise


def _write_clip(job: Job, plan: ShardPlan, position: int, tar: TarStream) -> dict[str, Any]:
    """Append a clip's frames and its JSON member to the tar, or nothing if it has no usable frames. Returns its row."""
    started, mark = time.monotonic(), tar.mark()
    clip, key = plan.clips[position], shard_key(plan.number, position)
    written = _write_frames(job, clip, key, tar)
    result, sizes, indices = written.result, written.sizes, written.indices
    status, reason = result.status, result.error
    if status in USABLE and len(sizes) < MIN_FRAMES:
        status, reason = "too_short", f"{len(sizes)} frames, {MIN_FRAMES} are the least"
    elif status == "damaged" and job.drop_damaged:
        status, reason = "decode_failed", f"damaged and left out: {reason}"
    usable = status in USABLE
    row: dict[str, Any] = {
        "clip_id": clip.clip_id,
        "split": clip.split,
        "labels": list(clip.labels),
        "source": clip.source,
        "shard": plan.tar,
        "key": key,
        "status": status,
        "error": reason,
        "num_frames": len(sizes) if usable else 0,
        "listed_frames": clip.listed_frames,
        "fps": result.fps,
        "height": result.height,
        "width": result.width,
        "duration_s": result.duration_s,
    }
    count = result.num_frames if job.spec.frames_per_clip else len(sizes)
    if usable and len(sizes) < count:
        row |= {"source_frames": count, "frame_indices": indices}
    if usable:
        tar.add(f"{key}.json", json.dumps(row, sort_keys=True, ensure_ascii=False).encode())
    else:
        tar.back_to(mark)
    return row | {
        "first_offset": written.first_offset if usable else None,
        "frame_sizes": sizes if usable else [],
        "num_bytes": sum(sizes) if usable else 0,
        "seconds": round(time.monotonic() - started, 3),
        **_source_columns(result),
    }


def _source_columns(result: Extraction) -> dict[str, Any]:
    """What the source says of itself: not in the JSON member, whose bytes are those of earlier versions."""
    video, size = result.video, upright_size(result)
    return {
        "sample_aspect": video and video.sample_aspect,
        "rotation": video and video.rotation,
        "transfer": video and video.transfer,
        "primaries": video and video.primaries,
        "color_range": video and video.color_range,
        "interlaced": video and video.interlaced,
        "source_height": size and size[0],
        "source_width": size and size[1],
    }


@dataclass(slots=True)
class _Written:
    """What of a clip has been written to the tar."""

    result: Extraction
    """How the extraction ended."""
    first_offset: int | None = None
    """Of the first frame."""
    sizes: list[int] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    """Numbers in the clip of the frames that were written, counted from 0."""


def _write_frames(job: Job, clip: Clip, key: str, tar: TarStream) -> _Written:
    """Append a clip's frames to the tar."""
    written = _Written(Extraction("missing", f"{clip.source} is not below the data root"))
    try:
        with job.source(clip) as path:
            if os.path.isdir(path) if clip.source_kind == "frames" else os.path.isfile(path):
                for index, jpeg in _frames(job, clip, path, written):
                    offset = tar.add(f"{key}.{index + 1:06d}.jpg", jpeg)
                    written.first_offset = offset if written.first_offset is None else written.first_offset
                    written.sizes.append(len(jpeg))
                    written.indices.append(index)
    except ValueError as error:
        written.result = Extraction("missing", str(error))
    return written


def _frames(job: Job, clip: Clip, path: Path, written: _Written) -> Iterator[tuple[int, bytes]]:
    """Number and JPEG of each frame that is to be packed; then `written` knows how the extraction ended."""
    spec, start_s, end_s, limits = job.spec, clip.start_s, clip.end_s, job.limits
    if spec.frames_per_clip is None:
        with open_frames(path, spec, start_s=start_s, end_s=end_s, limits=limits) as stream:
            yield from enumerate(stream)
        written.result = stream.result
        return
    rule = packing_rule(spec.frames_per_clip)
    chosen = sample_frames(path, spec, rule, start_s=start_s, end_s=end_s, whole=True, limits=limits)
    yield from sorted(chosen.jpegs.items())
    written.result = chosen.result
