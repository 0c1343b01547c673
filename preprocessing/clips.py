"""Turn annotation files into a checked list of clips. Goes in: lines of lists and a data root; comes out: Clip records.

Whatever is wrong with an annotation file is a UserError that names the file and the line.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from preprocessing.schema import SPLITS, Clip, UserError

VIDEO_EXTENSIONS = (
    *(".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".flv", ".wmv"),
    *(".mpg", ".mpeg", ".ts", ".ogv", ".3gp"),
)
FRAME_EXTENSIONS = (".jpg", ".jpeg")
SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"} | {
    "test": "test",
    "testing": "test",
}
"""What lists call a split, and what we call it."""


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


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """("file:line", text) of every line that is not blank. Raises UserError if the file is not UTF-8 text."""
    try:
        with open(path, encoding="utf-8-sig", newline=None) as file:
            for number, line in enumerate(file, 1):
                if text := line.strip("\r\n"):
                    yield f"{path}:{number}", text
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def csv_rows(path: Path, columns: Iterable[str], delimiter: str = ",") -> Iterator[tuple[str, dict[str, str]]]:
    """("file:line", row) of a CSV file with a header. Raises UserError for missing columns or cells."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            missing = [name for name in columns if name not in (reader.fieldnames or [])]
            if missing:
                raise UserError(f"{path}:1: no column {', '.join(map(repr, missing))}; found {reader.fieldnames}")
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if None in row or any(row[name] is None for name in columns):
                    raise UserError(f"{where}: the row does not have the header's number of cells")
                yield where, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8 ({error})") from None


def read_json(path: Path) -> object:
    """Content of a JSON file. Raises UserError with the place where it cannot be read."""
    try:
        return json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def to_int(text: str, what: str, where: str) -> int:
    """`text` as a whole number. Raises UserError naming `what` and `where`."""
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{where}: {what} is {text!r}, not a whole number") from None


def first_existing(root: Path, names: Iterable[str]) -> Path | None:
    """The first of `names` that exists below `root` or its folder `annotations`."""
    for name in names:
        for path in (root / name, root / "annotations" / name):
            if path.is_file():
                return path
    return None


def class_list(path: Path) -> tuple[str, ...]:
    """Class names from lines `index,name` (or `index name`), or of names alone, in the order of their index."""
    names: dict[int, str] = {}
    for position, (where, line) in enumerate(numbered_lines(path)):
        head, _, tail = line.replace(",", " ", 1).partition(" ")
        index, name = (int(head), tail.strip()) if head.isdigit() and tail.strip() else (position, line.strip())
        if index in names:
            raise UserError(f"{where}: class {index} is named twice, {names[index]!r} and {name!r}")
        names[index] = name
    if sorted(names) != list(range(len(names))) or not names:
        raise UserError(f"{path}: classes are not numbered 0 to {len(names) - 1} without gaps")
    if len(set(names.values())) != len(names):
        raise UserError(f"{path}: a class name appears twice")
    return tuple(names[index] for index in range(len(names)))


class Videos:
    """Video files below a data root, found by one walk, looked up by name without extension.

    With `frame_folders`, folders that hold JPEGs count too, by their own name.
    """

    def __init__(self, root: Path, *, frame_folders: bool = False) -> None:
        self._by_path: dict[str, str] = {}
        self._by_stem: dict[str, list[str]] = {}
        self._folders: set[str] = set()
        for folder, names, files in os.walk(root):
            names.sort()
            prefix = os.path.relpath(folder, root).replace(os.sep, "/")
            for name in sorted(files):
                stem, extension = os.path.splitext(name)
                if extension.lower() in VIDEO_EXTENSIONS:
                    path = name if prefix == "." else f"{prefix}/{name}"
                    self._add(os.path.splitext(path)[0], stem, path)
            if frame_folders and prefix != "." and any(name.lower().endswith(FRAME_EXTENSIONS) for name in files):
                self._folders.add(prefix)
                self._add(prefix, prefix.rpartition("/")[2], prefix)

    def _add(self, path_stem: str, stem: str, path: str) -> None:
        self._by_path.setdefault(path_stem, path)
        self._by_stem.setdefault(stem, []).append(path)

    def kind(self, source: str | None) -> Literal["video", "frames"]:
        """What a found source is; None, not found, counts as a video."""
        return "frames" if source in self._folders else "video"

    def find(self, names: Iterable[str], hint: str = "") -> str | None:
        """Path below the root of the first name that exists, as a path or as a file name anywhere below.

        Where several folders hold a file of that name, the one with `hint` (a split, a class) among its folders wins,
        else the first in alphabetical order.
        """
        for name in names:
            if name in self._by_path:
                return self._by_path[name]
            if places := self._by_stem.get(name.rpartition("/")[2]):
                hinted = [place for place in places if hint and hint in place.split("/")[:-1]]
                return (hinted or places)[0]
        return None


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


def measure_sources(root: Path, clips: Sequence[Clip]) -> list[int]:
    """Bytes of each clip's source, -1 where it is missing."""
    with ThreadPoolExecutor(16) as pool:  # a network disk answers many questions at once
        return list(pool.map(lambda clip: source_bytes(root, clip), clips, chunksize=256))


def clips_digest(clips: Iterable[Clip]) -> str:
    """Hash of a list of clips: of everything that is known of each, in their order."""
    state = hashlib.sha256()
    for clip in clips:
        state.update(json.dumps(asdict(clip), sort_keys=True).encode() + b"\n")
    return state.hexdigest()[:16]
