"""The cost of an extraction, estimated from a sample. Goes in: a job and its clips; comes out: frames, bytes and CPU
time."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from preprocessing.media.extraction import Extraction, Limits
from preprocessing.media.frames import open_frames
from preprocessing.schema import USABLE, Clip, ExtractionSpec
from preprocessing.shards.job import Job
from preprocessing.shards.plan import plan_shards
from preprocessing.sources import resolve_source

SAMPLE = 12
_SAMPLE_FRAMES = 300
"""No more frames than these of each sampled clip: the rest follows from its duration."""
_SAMPLE_LIMITS = Limits(timeout_s=120)


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
    by_size = sorted((row for row in range(len(clips)) if sizes[row] >= 0), key=lambda row: sizes[row])
    places = np.unique(np.linspace(0, max(len(by_size) - 1, 0), min(SAMPLE, len(by_size))).round().astype(int))
    samples, problems = list[_Sample](), list[tuple[str, str, str]]()
    for row in (by_size[place] for place in places):
        sample, result = _extract_sample(job, clips[row], sizes[row])
        if sample.frames:
            samples.append(sample)
        if result.status != "ok":
            problems.append((clips[row].clip_id, result.status, result.error))
    sampled_bytes = sum(sample.source_bytes for sample in samples)
    scale = sum(sizes[row] for row in by_size) / sampled_bytes if sampled_bytes else 0.0
    missing = [clip.source for clip, size in zip(clips, sizes, strict=True) if size < 0]
    return {
        "clips": len(clips),
        "found": len(by_size),
        "missing": len(missing),
        "first_missing": missing[0] if missing else "",
        "shards": len(plan_shards(clips, sizes, job.clips_per_shard)),
        "num_frames": round(scale * sum(sample.frames for sample in samples)),
        "num_bytes": round(scale * sum(sample.num_bytes for sample in samples)),
        "cpu_hours": scale * sum(sample.cpu_s for sample in samples) / 3600,
        "sampled": len(places),
        "sample_problems": problems,
    }


def _extract_sample(job: Job, clip: Clip, source_bytes: int) -> tuple[_Sample, Extraction]:
    """Extract the beginning of a clip, write nothing; what the whole clip would cost, and how the extraction ended."""
    cap = min(job.spec.max_frames or _SAMPLE_FRAMES, _SAMPLE_FRAMES)
    started_s, num_bytes, count = _cpu_s(), 0, 0
    path, spec = resolve_source(job.root, clip.source), replace(job.spec, max_frames=cap)
    with open_frames(path, spec, start_s=clip.start_s, end_s=clip.end_s, limits=_SAMPLE_LIMITS) as stream:
        for jpeg in stream:
            count, num_bytes = count + 1, num_bytes + 512 + -(-len(jpeg) // 512) * 512
    result = stream.result
    total = max(count, _total_frames(clip, result, job.spec)) if count >= cap else count
    factor = total / count if count else 0.0
    frames = total if result.status in USABLE else 0
    return _Sample(source_bytes, frames, num_bytes * factor, (_cpu_s() - started_s) * factor), result


def _total_frames(clip: Clip, result: Extraction, spec: ExtractionSpec) -> int:
    if clip.source_kind == "frames" or result.duration_s is None or result.fps is None:
        return clip.listed_frames or 0
    duration_s = min(clip.end_s or result.duration_s, result.duration_s) - (clip.start_s or 0.0)
    return min(round(duration_s * result.fps), spec.max_frames or 1 << 30)


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(item.ru_utime + item.ru_stime for item in used)
