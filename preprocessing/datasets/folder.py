"""A user's own clips: a `manifest.csv` in the data root, or one folder per class (per split, if there are splits).

The manifest has at least the columns path, label, split; clip_id, start_s, end_s are read if they are there, others
ignored. Labels are class names or numbers; names come from `classInd.txt` or the column `class` where present. A
`boxes.csv` beside it says where objects are.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path

from preprocessing.clips import ClipList
from preprocessing.datasets.annotations import SPLIT_NAMES, first_existing, to_float
from preprocessing.datasets.boxes import add_boxes
from preprocessing.datasets.labels import classes_of
from preprocessing.datasets.manifest import Manifest
from preprocessing.datasets.videos import is_hidden, is_video, log_skipped, videos_below
from preprocessing.schema import Clip, DatasetInfo, UserError
from preprocessing.sources import readable_name

log = logging.getLogger(__name__)

_VAL_SHARE = 5
"""Without split folders every fifth video of a class, in the order of names, is for validation."""


def read_clips(root: Path) -> tuple[DatasetInfo, list[Clip]]:
    """Clips below `root`. Raises UserError if there are none, or for a bad manifest or bad boxes with file and line."""
    manifest = first_existing(root, ["manifest.csv"])
    info, clips = _read_folders(root) if manifest is None else _read_manifest(root, manifest)
    return info, add_boxes(root, clips)


def _read_manifest(root: Path, path: Path) -> tuple[DatasetInfo, list[Clip]]:
    manifest = Manifest(path)
    names, labels = classes_of(root, manifest)
    clips, once = ClipList(len(names), repeats=True), [(label,) for label in range(len(names))]
    columns = (manifest[name] for name in ("path", "split", "clip_id", "start_s", "end_s"))
    folders = _Folders(root)
    for row, (source, split, clip_id, start, end) in enumerate(zip(*columns, strict=True)):
        where = manifest.where(row)
        start_s = to_float(start, "start_s in seconds", where) if start else None
        end_s = to_float(end, "end_s in seconds", where) if end else None
        cut = "" if start_s is None and end_s is None else f"@{start_s or 0:g}-{'' if end_s is None else f'{end_s:g}'}"
        clip = Clip(
            dataset="folder",
            split=SPLIT_NAMES.get(split.lower(), split.lower()),
            clip_id=clip_id or (source + cut if cut else source),
            source=source,
            labels=once[labels[row]],
            source_kind="frames" if source in folders else "video",
            start_s=start_s,
            end_s=end_s,
        )
        clips.add(clip, where)
    return DatasetInfo("folder", names, annotations=path.name), clips.clips


class _Folders:
    """The folders below a data root, each of whose parents is listed only once: a disk is asked little of millions of
    paths."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._below: dict[str, set[str]] = {}

    def __contains__(self, source: str) -> bool:
        parent, _, name = source.rpartition("/")
        if not name or name in (".", ".."):
            return os.path.isdir(f"{self._root}/{source}")
        if (names := self._below.get(parent)) is None:
            try:
                entries = os.scandir(f"{self._root}/{parent}")
                names = {entry.name.casefold() for entry in entries if entry.is_dir()}
            except (OSError, ValueError):
                names = set()
            self._below[parent] = names
        return name.casefold() in names and os.path.isdir(f"{self._root}/{source}")  # some disks tell upper from lower


def _read_folders(root: Path) -> tuple[DatasetInfo, list[Clip]]:
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and not is_hidden(path.name)]
    splits = [(SPLIT_NAMES[path.name.lower()], path) for path in folders if path.name.lower() in SPLIT_NAMES]
    left_out = _LeftOut()
    classes = [(split, *item) for split, folder in splits for item in _classes(folder, left_out)]
    if classes:
        left_out.add("it is no split", [path for path in folders if path.name.lower() not in SPLIT_NAMES])
        left_out.add("it is in no class folder", _loose_videos(root))
    else:
        left_out = _LeftOut()
        classes = [("", *item) for item in _classes(root, left_out)]
    left_out.log(root)
    if not classes:
        raise UserError(
            f"{root}: no clips. Put a manifest.csv with the columns path,label,split there, or folders "
            "<class>/<video> or <split>/<class>/<video>"
        )
    names = tuple(sorted({name for _, name, _ in classes}))
    clips = ClipList(len(names))
    for split, name, videos in classes:
        for position, video in enumerate(videos):
            path = readable_name(video.relative_to(root).as_posix())
            clip_split = split or ("val" if position % _VAL_SHARE == _VAL_SHARE - 1 else "train")
            clips.add(Clip("folder", clip_split, path, path, (names.index(name),)), path)
    how = "folders by split and class" if splits else "folders by class, every fifth video for validation"
    return DatasetInfo("folder", names, annotations=how), clips.clips


def _classes(folder: Path, left_out: _LeftOut) -> list[tuple[str, list[Path]]]:
    """Name and videos of every folder in `folder` that holds videos."""
    classes = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not is_hidden(path.name):
            if videos := videos_below(path, left_out.files):
                classes.append((readable_name(path.name), videos))
            else:
                left_out.add("there is no video in it", [path])
    left_out.add("it is in no class folder", _loose_videos(folder))
    return classes


def _loose_videos(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if is_video(path.name) and path.is_file()]


class _LeftOut:
    """What is in the data root and is no clip, and why."""

    def __init__(self) -> None:
        self.files = Counter[str]()
        """Files that are no videos, by the endings of their names."""
        self._paths: dict[str, list[Path]] = {}

    def add(self, why: str, paths: list[Path]) -> None:
        self._paths.setdefault(why, []).extend(paths)

    def log(self, root: Path) -> None:
        """Say it, a line for each reason."""
        log_skipped(root, self.files)
        for why, paths in self._paths.items():
            if paths:
                more = f" and {len(paths) - 1} others like it" if len(paths) > 1 else ""
                log.warning("left out: %s%s: %s", readable_name(str(paths[0])), more, why)
