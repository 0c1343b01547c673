"""Lists of clips: checked while they are collected, reduced to a selection, named by a hash, measured on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from preprocessing.schema import SPLITS, Clip, UserError


class ClipList:
    """Collects clips and checks each where it comes from: `add(clip, where)` with `where` a "file:line"."""

    def __init__(self, num_classes: int) -> None:
        self.clips: list[Clip] = []
        self._num_classes = num_classes
        self._places: dict[str, tuple[str, str]] = {}

    def add(self, clip: Clip, where: str) -> None:
        """Append `clip`. Raises UserError for an id seen before, a bad label, split, path or time range."""
        if not clip.clip_id or any(ord(letter) < 32 for letter in clip.clip_id + clip.source):
            raise UserError(f"{where}: {clip.clip_id!r} cannot name a clip: it is empty or holds control characters")
        if clip.split not in SPLITS:
            raise UserError(f"{where}: split {clip.split!r} is none of {', '.join(SPLITS)}")
        if clip.clip_id in self._places:
            split, place = self._places[clip.clip_id]
            other = f"is in two splits, {split} and {clip.split}" if split != clip.split else "appears twice"
            raise UserError(f"{where}: clip {clip.clip_id!r} {other} (first at {place}); remove one of the lines")
        if not clip.labels:
            raise UserError(f"{where}: clip {clip.clip_id!r} has no label")
        for label in clip.labels:
            if not 0 <= label < self._num_classes:
                raise UserError(f"{where}: label {label} is not in 0..{self._num_classes - 1}")
        if clip.start_s is not None and clip.end_s is not None and not 0 <= clip.start_s < clip.end_s:
            raise UserError(f"{where}: the time range {clip.start_s:g} to {clip.end_s:g} s is empty or negative")
        self._places[clip.clip_id] = (clip.split, where)
        self.clips.append(clip)


def select_clips(clips: Sequence[Clip], splits: Sequence[str] | None, limit: int | None) -> list[Clip]:
    """Clips of some splits, at most `limit` of each (the first ones). Raises UserError if none is left."""
    unknown = [split for split in splits or () if split not in SPLITS]
    if unknown:
        raise UserError(f"unknown split {unknown[0]!r}; known are {', '.join(SPLITS)}")
    counts: dict[str, int] = {}
    selected = []
    for clip in clips:
        if splits and clip.split not in splits:
            continue
        counts[clip.split] = counts.get(clip.split, 0) + 1
        if limit is None or counts[clip.split] <= limit:
            selected.append(clip)
    if not selected:
        present = ", ".join(sorted({clip.split for clip in clips})) or "none"
        raise UserError(f"no clips left: the data set has the splits {present}, chosen were {splits or 'all'}")
    return selected


def clips_digest(clips: Iterable[Clip]) -> str:
    """Hash of a list of clips: of everything that is known of each, in their order."""
    state = hashlib.sha256()
    for clip in clips:
        state.update(json.dumps(asdict(clip), sort_keys=True).encode() + b"\n")
    return state.hexdigest()[:16]


def resolve_source(root: Path, source: str) -> Path:
    """Absolute path of a clip's source. Raises ValueError if it does not stay below the data root."""
    base = root.resolve()
    path = (base / source).resolve()
    if not path.is_relative_to(base) or path == base:
        raise ValueError(f"{source!r} leaves the data root")
    return path


def source_bytes(root: Path, clip: Clip) -> int:
    """Size in bytes of a clip's source; for a folder of frames a guess; -1 if it is missing or outside the root."""
    try:
        path = resolve_source(root, clip.source)
        if clip.source_kind == "frames":
            return (clip.listed_frames or 40) * 20_000 if path.is_dir() else -1
        return path.stat().st_size if path.is_file() else -1
    except (OSError, ValueError):
        return -1


def measure_sources(root: Path, clips: Sequence[Clip]) -> list[int]:
    """Bytes of each clip's source, -1 where it is missing."""
    with ThreadPoolExecutor(16) as pool:  # a network disk answers many questions at once
        return list(pool.map(lambda clip: source_bytes(root, clip), clips, chunksize=256))
