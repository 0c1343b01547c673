"""Lists of clips: checked while they are collected, reduced to a selection, named by a hash."""

from __future__ import annotations

import hashlib
import json
import math
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from preprocessing.schema import SPLITS, Clip, UserError


@dataclass(frozen=True, slots=True)
class _Part:
    """A time range of a source that a clip takes, and where that is listed."""

    start_s: float
    end_s: float
    clip: Clip
    where: str


class ClipList:
    """Collects clips and checks each where it comes from: `add(clip, where)` with `where` a "file:line"."""

    def __init__(self, num_classes: int, *, repeats: bool = False) -> None:
        """`repeats`: a file may be listed more than once in a split, under ids of its own."""
        self.clips: list[Clip] = []
        self._num_classes, self._repeats = num_classes, repeats
        self._places: dict[str, tuple[str, str]] = {}
        self._parts: dict[str, list[_Part]] = {}

    def add(self, clip: Clip, where: str) -> None:
        """Append `clip`. Raises UserError for an id or a file seen before, a bad label, split, path or time range."""
        for name in (clip.clip_id, clip.source):
            if not name or any(ord(letter) < 32 for letter in name) or not is_text(name):
                raise UserError(
                    f"{where}: {name!r} cannot name a clip: it is empty, or holds control characters or no text"
                )
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
        self._check_part(clip, where)
        self._places[clip.clip_id] = (clip.split, where)
        self.clips.append(clip)

    def _check_part(self, clip: Clip, where: str) -> None:
        """Raise UserError for a time range that is none, and for a part of a file that another clip takes too: in
        another split, or under another spelling of the path."""
        part = _Part(clip.start_s or 0.0, math.inf if clip.end_s is None else clip.end_s, clip, where)
        ends = [each for each in (clip.start_s, clip.end_s) if each is not None]
        if not all(map(math.isfinite, ends)) or not 0 <= part.start_s < part.end_s:
            raise UserError(f"{where}: the time range {part.start_s:g} to {part.end_s:g} s is empty, negative or none")
        others = self._parts.setdefault(posixpath.normpath(clip.source), [])
        for other in others:
            same = (other.start_s, other.end_s) == (part.start_s, part.end_s)
            overlap = part.start_s < other.end_s and other.start_s < part.end_s
            if overlap and other.clip.split != clip.split:
                raise UserError(
                    f"{where}: {clip.source!r} is in two splits, {other.clip.split} and {clip.split} (first as "
                    f"{other.clip.source!r} at {other.where}); remove one of the lines"
                )
            if same and (other.clip.source != clip.source or not self._repeats):
                raise UserError(
                    f"{where}: {clip.source!r} is the same file as {other.clip.source!r} at {other.where}; remove one "
                    "of the lines"
                )
        others.append(part)


def is_text(name: str) -> bool:
    """Can a name be written as UTF-8? A file's name need not be text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


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
        state.update(json.dumps(_facts(clip), sort_keys=True).encode() + b"\n")
    return state.hexdigest()[:16]


def _facts(clip: Clip) -> dict[str, Any]:
    """What is known of a clip; where its boxes are listed says nothing of it, and clips without any stay equal to those
    of versions that knew no boxes in pixels."""
    facts = asdict(clip)
    boxes = facts.pop("source_boxes")
    if boxes is not None:
        facts["source_boxes"] = [{name: box[name] for name in box if name != "where"} for box in boxes]
    return facts
