"""The cost of an extraction, estimated from a sample. Goes in: a job and its clips; comes out: frames, bytes and CPU
time."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from preprocessing.frame_choice import EVALUATED, packed_frames
from preprocessing.media.extraction import Extraction, Limits
from preprocessing.media.frames import open_frames
from preprocessing.schema import USABLE, Clip, ExtractionSpec
from preprocessing.shards.planning.job import Job
from preprocessing.shards.planning.plan import PackedSize, plan_shards

SAMPLE = 12
_SAMPLE_FRAMES = 300
"""No more frames than these of each sampled clip: the rest follows from its duration."""
_SAMPLE_LIMITS = Limits(timeout_s=120)
_SIZE_SAMPLE, _SIZE_FRAMES = 6, 24
"""Clips, and frames of each, from which sizes alone are estimated, before the work."""
_FETCHED, _SIZE_FETCHED = 32 << 20, 8 << 20
"""Bytes of a sampled clip's beginning that are fetched from far away, for the one and for the other."""
_MOST_GROWTH = 200
"""Hardly a video is packed to so many times its size."""


@dataclass(frozen=True, slots=True)
class _Sample:
    """What one clip costs, its unseen frames included."""

    source_bytes: int
    frames: int
    num_bytes: float
    """Of the frames with the tar's own."""
    cpu_s: float


def estimate_cost(job: Job, clips: Sequence[Clip], sizes: Sequence[int]) -> dict[str, Any]:
    """About how many frames, bytes and CPU-hours a job will take, from a sample of clips of different sizes.

    `sizes` are those of the clips' sources in bytes, -1 for missing ones.
    """
    job = job.planned(None)
    samples, problems = list[_Sample](), list[tuple[str, str, str]]()
    rows = _spread(sizes, SAMPLE)
    for row in rows:
        sample, result = _extract_sample(job, clips[row], sizes[row], _SAMPLE_FRAMES, _FETCHED)
        if sample.frames:
            samples.append(sample)
        if result.status != "ok":
            problems.append((clips[row].clip_id, result.status, result.error))
    sampled_bytes = sum(sample.source_bytes for sample in samples)
    found = [size for size in sizes if size >= 0]
    scale = sum(found) / sampled_bytes if sampled_bytes else 0.0
    missing = [clip.source for clip, size in zip(clips, sizes, strict=True) if size < 0]
    plans = plan_shards(clips, sizes, job.clips_per_shard, job.shard_bytes, _packed_size(job, samples))
    return {
        "clips": len(clips),
        "found": len(found),
        "missing": len(missing),
        "first_missing": missing[0] if missing else "",
        "shards": len(plans),
        "num_frames": round(scale * sum(sample.frames for sample in samples)),
        "num_bytes": round(scale * sum(sample.num_bytes for sample in samples)),
        "cpu_hours": scale * sum(sample.cpu_s for sample in samples) / 3600,
        "sampled": len(rows),
        "sample_problems": problems,
    }


def estimate_packed_size(job: Job, clips: Sequence[Clip], sizes: Sequence[int]) -> PackedSize:
    """What clips become once they are packed, from the beginnings of a few; sources that are small whatever they become
    are not looked at."""
    if not job.shard_bytes or sum(max(size, 0) for size in sizes) * _MOST_GROWTH <= job.shard_bytes:
        return PackedSize()

    def sample(row: int) -> _Sample:
        return _extract_sample(job, clips[row], sizes[row], _SIZE_FRAMES, _SIZE_FETCHED)[0]

    with ThreadPoolExecutor(_SIZE_SAMPLE) as pool:
        return _packed_size(job, list(pool.map(sample, _spread(sizes, _SIZE_SAMPLE))))


def _packed_size(job: Job, samples: Sequence[_Sample]) -> PackedSize:
    """The mean of samples."""
    samples = [sample for sample in samples if sample.frames]
    source_bytes = sum(sample.source_bytes for sample in samples)
    num_bytes, frames = sum(sample.num_bytes for sample in samples), sum(sample.frames for sample in samples)
    if not source_bytes:
        return PackedSize()
    spec = job.spec
    most_frames = [spec.max_frames] if spec.max_frames else []
    if spec.frames_per_clip:
        most_frames.append(sum((*EVALUATED, spec.frames_per_clip)))
    most = min(most_frames) * num_bytes / frames if most_frames else None
    return PackedSize(num_bytes / source_bytes, most)


def _spread(sizes: Sequence[int], count: int) -> list[int]:
    """Rows of so many clips that are there, of all sizes."""
    by_size = sorted((row for row in range(len(sizes)) if sizes[row] >= 0), key=lambda row: sizes[row])
    places = np.unique(np.linspace(0, max(len(by_size) - 1, 0), min(count, len(by_size))).round().astype(int))
    return [by_size[place] for place in places]


def _extract_sample(job: Job, clip: Clip, source_bytes: int, most: int, fetched: int) -> tuple[_Sample, Extraction]:
    """Extract the first frames of a clip, `most` of them, write nothing; what the whole clip would cost, and how the
    extraction ended.

    Of a file far away that has more than so many bytes to be `fetched` the first frames stand for those of the clip.
    """
    is_part = job.far is not None and clip.source_kind == "video" and source_bytes > fetched
    cap = min(job.spec.max_frames or most, most)
    started_s, num_bytes, count = _cpu_s(), 0, 0
    spec = replace(job.spec, max_frames=cap, frames_per_clip=None)
    cut = (None, None) if is_part else (clip.start_s, clip.end_s)
    try:
        with (
            job.source(clip, fetched) as path,
            open_frames(path, spec, start_s=cut[0], end_s=cut[1], limits=_SAMPLE_LIMITS) as stream,
        ):
            for jpeg in stream:
                count, num_bytes = count + 1, num_bytes + 512 + -(-len(jpeg) // 512) * 512
        result = stream.result
    except ValueError as error:  # it cannot be fetched
        result = Extraction("missing", str(error))
    if is_part and result.status != "ok":
        reason = f"of {source_bytes} bytes {fetched} and the end were fetched: {result.error}"
        result = replace(result, status="ok" if count else result.status, error="" if count else reason)
    total = max(count, _total_frames(clip, result, job.spec)) if is_part or count >= cap else count
    packed = len(packed_frames(total, job.spec.frames_per_clip)) if total and job.spec.frames_per_clip else total
    cpu_s = (_cpu_s() - started_s) * total / max(count, 1)
    frames = packed if result.status in USABLE else 0
    return _Sample(source_bytes, frames, num_bytes * packed / max(count, 1), cpu_s), result


def _total_frames(clip: Clip, result: Extraction, spec: ExtractionSpec) -> int:
    if clip.source_kind == "frames" or result.duration_s is None or result.fps is None:
        return clip.listed_frames or 0
    duration_s = min(clip.end_s or result.duration_s, result.duration_s) - (clip.start_s or 0.0)
    return min(round(duration_s * result.fps), spec.max_frames or 1 << 30)


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(item.ru_utime + item.ru_stime for item in used)
