"""What an extraction will cost, from a sample. Goes in: clips and settings; comes out: frames, bytes and CPU time."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from preprocessing.clips import resolve_source
from preprocessing.media.ffmpeg import Extraction, Limits
from preprocessing.schema import USABLE, Clip, ExtractionSpec
from preprocessing.shards.writer import open_frames, plan_shards

SAMPLE = 12
_SAMPLE_FRAMES = 300
"""No more frames than these of each sampled clip: the rest follows from its duration."""


def estimate_cost(
    root: Path, clips: Sequence[Clip], sizes: Sequence[int], spec: ExtractionSpec, clips_per_shard: int
) -> dict[str, Any]:
    """Clips found and missing, shards, and from a sample of different sizes about how many frames, bytes, CPU-hours."""
    order = sorted((row for row in range(len(clips)) if sizes[row] >= 0), key=lambda row: sizes[row])
    picked = np.unique(np.linspace(0, max(len(order) - 1, 0), min(SAMPLE, len(order))).round().astype(int))
    sampled = [_probe(root, clips[order[place]], sizes[order[place]], spec) for place in picked]
    good = [probe for probe in sampled if probe["frames"]]
    source_bytes = sum(probe["source_bytes"] for probe in good)
    scale = sum(sizes[row] for row in order) / source_bytes if source_bytes else 0.0
    missing = [clip.source for clip, size in zip(clips, sizes, strict=True) if size < 0]
    return {
        "clips": len(clips),
        "found": len(order),
        "missing": len(missing),
        "first_missing": missing[0] if missing else "",
        "shards": len(plan_shards(clips, sizes, clips_per_shard)),
        "num_frames": round(scale * sum(probe["frames"] for probe in good)),
        "num_bytes": round(scale * sum(probe["bytes"] for probe in good)),
        "cpu_hours": scale * sum(probe["cpu_s"] for probe in good) / 3600,
        "sampled": len(sampled),
        "sample_problems": [
            (probe["clip_id"], probe["status"], probe["error"]) for probe in sampled if probe["status"] != "ok"
        ],
    }


def _probe(root: Path, clip: Clip, size: int, spec: ExtractionSpec) -> dict[str, Any]:
    """Frames, bytes with the tar's own, and CPU seconds of a whole clip, from its beginning."""
    cap = min(spec.max_frames or _SAMPLE_FRAMES, _SAMPLE_FRAMES)
    before, num_bytes, count = _cpu_s(), 0, 0
    stream = open_frames(resolve_source(root, clip.source), clip, replace(spec, max_frames=cap), Limits(timeout_s=120))
    with stream as frames:
        for jpeg in frames:
            count, num_bytes = count + 1, num_bytes + 512 + -(-len(jpeg) // 512) * 512
    result = stream.result
    whole = max(count, _total_frames(clip, result, spec)) if count >= cap else count
    share = whole / count if count else 0.0
    return {
        "clip_id": clip.clip_id,
        "status": result.status,
        "error": result.error,
        "source_bytes": size,
        "frames": whole if result.status in USABLE else 0,
        "bytes": num_bytes * share,
        "cpu_s": (_cpu_s() - before) * share,
    }


def _total_frames(clip: Clip, result: Extraction, spec: ExtractionSpec) -> int:
    if clip.source_kind == "frames" or result.duration_s is None or result.fps is None:
        return clip.listed_frames or 0
    duration_s = min(clip.end_s or result.duration_s, result.duration_s) - (clip.start_s or 0.0)
    return min(round(duration_s * result.fps), spec.max_frames or 1 << 30)


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(item.ru_utime + item.ru_stime for item in used)
