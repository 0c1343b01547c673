"""Lists of clips: checked while they are collected, reduced to a selection, named by a hash."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import posixpath
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from preprocessing.schema import SPLITS, Clip, UserError


class ClipList:
    """Collects clips and checks each where it comes from: `add(clip, where)` with `where` a "file:line".

    There may be millions: of each no more is kept than the clip and two numbers.
    """

    def __init__(self, num_classes: int, *, repeats: bool = False) -> None:
        """`repeats`: a file may be listed more than once in a split, under ids of its own."""
        self.clips: list[Clip] = []
        self._num_classes, self._repeats = num_classes, repeats
        self._by_id: dict[str, int] = {}
        self._by_source: dict[str, int | list[int]] = {}
        self._places = _Places()

    def add(self, clip: Clip, where: str) -> None:
        """Append `clip`. Raises UserError for an id or a file seen before, a bad label, split, path or time range."""
        for name in (clip.clip_id, clip.source):
            if not name or (not (name.isascii() and name.isprintable()) and not _is_name(name)):
                raise UserError(
                    f"{_printable(where)}: {name!r} cannot name a clip: it is empty, or holds "
                    "control characters or no text"
                )
        if clip.split not in SPLITS:
            raise UserError(f"{where}: split {clip.split!r} is none of {', '.join(SPLITS)}")
        if (first := self._find_id(clip.clip_id)) is not None:
            split, place = self.clips[first].split, self._places[first]
            other = f"is in two splits, {split} and {clip.split}" if split != clip.split else "appears twice"
            raise UserError(f"{where}: clip {clip.clip_id!r} {other} (first at {place}); remove one of the lines")
        if not clip.labels:
            raise UserError(f"{where}: clip {clip.clip_id!r} has no label")
        for label in clip.labels:
            if not 0 <= label < self._num_classes:
                raise UserError(f"{where}: label {label} is not in 0..{self._num_classes - 1}")
        self._check_part(clip, where)
        if clip.clip_id != clip.source or clip.source not in self._by_source:
            self._by_id[clip.clip_id] = len(self.clips)
        self._places.append(where)
        self.clips.append(clip)

    def _find_id(self, clip_id: str) -> int | None:
        """Number of the clip with that id, None if there is none. Ids that are plain paths are kept as such alone."""
        if (found := self._by_id.get(clip_id)) is not None:
            return found
        listed = self._by_source.get(clip_id, ())
        for number in (listed,) if isinstance(listed, int) else listed:
            if self.clips[number].clip_id == clip_id:
                return number
        return None

    def _check_part(self, clip: Clip, where: str) -> None:
        """Raise UserError for a time range that is none, and for a part of a file that another clip takes too: in
        another split, or under another spelling of the path."""
        start_s, end_s = _range(clip)
        ends = [each for each in (clip.start_s, clip.end_s) if each is not None]
        if not all(map(math.isfinite, ends)) or not 0 <= start_s < end_s:
            raise UserError(f"{where}: the time range {start_s:g} to {end_s:g} s is empty, negative or none")
        if ends and clip.source_kind == "frames":
            raise UserError(
                f"{where}: {clip.source!r} is a folder of frames, which has no clock to cut {start_s:g} to {end_s:g} s "
                "by: put the frames of each clip into a folder of their own"
            )
        number, source = len(self.clips), clip.source
        if "//" in source or "/." in source or source[0] in "./" or source[-1] == "/":
            source = posixpath.normpath(source)
        before = self._by_source.setdefault(source, number)
        if before == number:
            return
        before = [before] if isinstance(before, int) else before
        for each in before:
            other = self.clips[each]
            other_start_s, other_end_s = _range(other)
            if start_s < other_end_s and other_start_s < end_s and other.split != clip.split:
                raise UserError(
                    f"{where}: {clip.source!r} is in two splits, {other.split} and {clip.split} (first as "
                    f"{other.source!r} at {self._places[each]}); remove one of the lines"
                )
            is_same = (other_start_s, other_end_s) == (start_s, end_s)
            if is_same and (other.source != clip.source or not self._repeats):
                raise UserError(
                    f"{where}: {clip.source!r} is the same file as {other.source!r} at {self._places[each]}; "
                    "remove one of the lines"
                )
        self._by_source[source] = [*before, number]


class _Places:
    """Where clips are listed, as "file:line"; the files' names are kept once."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._file, self._line = array("l"), array("q")

    def append(self, where: str) -> None:
        file, _, line = where.rpartition(":")
        if not line.isdecimal():
            file, line = where, "-1"
        self._file.append(self._files.setdefault(file, len(self._files)))
        self._line.append(int(line))

    def __getitem__(self, number: int) -> str:
        file = list(self._files)[self._file[number]]
        return file if self._line[number] < 0 else f"{file}:{self._line[number]}"


def _range(clip: Clip) -> tuple[float, float]:
    """The seconds of its file that a clip takes."""
    return clip.start_s or 0.0, math.inf if clip.end_s is None else clip.end_s


def _is_name(name: str) -> bool:
    """Is it text without control characters?"""
    return is_text(name) and not any(ord(letter) < 32 for letter in name)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


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


def clips_digest(clips: Iterable[Clip], *, source_boxes: bool = False) -> str:
    """Hash of a list of clips: of what is known of each, in their order.

    Boxes in pixels, which change no frame and no shard, count only where `source_boxes` says so, as they once did.
    """
    state = hashlib.sha256()
    for clip in clips:
        state.update(_line(clip, source_boxes).encode())
    return state.hexdigest()[:16]


def _line(clip: Clip, source_boxes: bool) -> str:
    """What is known of a clip as a line of JSON, the names in order: put together by hand, for there may be millions.

    Where its boxes are listed says nothing of it, and clips without any stay equal to those of versions that knew no
    boxes in pixels.
    """
    boxes = ""
    if source_boxes and clip.source_boxes is not None:
        listed = [{name: value for name, value in asdict(box).items() if name != "where"} for box in clip.source_boxes]
        boxes = f'"source_boxes": {json.dumps(listed, sort_keys=True)}, '
    return (
        f'{{"boxes": {_json(clip.boxes)}, "clip_id": {_text(clip.clip_id)}, "dataset": {_text(clip.dataset)}, '
        f'"end_s": {_json(clip.end_s)}, "labels": {_labels(clip.labels)}, '
        f'"listed_frames": {_json(clip.listed_frames)}, '
        f'"source": {_text(clip.source)}, {boxes}"source_kind": {_text(clip.source_kind)}, '
        f'"split": {_text(clip.split)}, "start_s": {_json(clip.start_s)}}}\n'
    )


_text = json.encoder.encode_basestring_ascii


@functools.lru_cache(1 << 16)
def _labels(labels: tuple[int, ...]) -> str:
    """Labels as JSON: of millions of clips few are different."""
    return json.dumps(labels)


def _json(value: object) -> str:
    return "null" if value is None else json.dumps(value)
