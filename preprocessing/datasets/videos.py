"""Where the videos of a data set lie: files and folders of frames below a data root, by name."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from preprocessing.media.frame_folder import FRAME_EXTENSIONS
from preprocessing.sources import readable_name

log = logging.getLogger(__name__)

VIDEO_EXTENSIONS = (
    *(".mp4", ".m4v", ".mov", ".qt", ".f4v", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".divx", ".flv", ".ogv", ".ogm"),
    *(".wmv", ".asf", ".mpg", ".mpeg", ".mpe", ".m2p", ".vob", ".ts", ".mts", ".m2ts", ".m2t", ".gif"),
)
"""Endings of file names that are taken for videos, in small letters."""
_TEXTS = (".txt", ".csv", ".tsv", ".json", ".md")
"""Files that nobody takes for videos: annotations, notes."""
_NOT_OURS = (
    *("__MACOSX", "@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", "lost+found"),
    *("$RECYCLE.BIN", "System Volume Information", "__pycache__"),
)
"""Folders that systems make for themselves."""
_SHOWN = 5
"""So many names at most are listed in a message."""


def is_video(name: str) -> bool:
    """Is that the name of a video, by its ending?"""
    return name.lower().endswith(VIDEO_EXTENSIONS)


def is_hidden(name: str) -> bool:
    """Does a file or folder of that name belong to a system or an editor, and not to the data?"""
    return name.startswith(".") or name in _NOT_OURS


def walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """(folder, names of its files) for `root` and all folders below, in the order of their names.

    Hidden ones are left out. Folders that are links come after all others, and no folder comes twice; links that lead
    to a folder around `root` are not followed.
    """
    waiting, seen = [str(root)], {_place(parent) for parent in root.resolve().parents}
    for top in waiting:
        for folder, names, files in os.walk(top):
            if (place := _place(folder)) in seen:
                names.clear()
                continue
            seen.add(place)
            names[:] = sorted(name for name in names if not is_hidden(name))
            waiting += [path for name in names if os.path.islink(path := os.path.join(folder, name))]
            yield folder, sorted(name for name in files if not is_hidden(name))


def _place(folder: str | Path) -> tuple[int, int]:
    """Names a folder, whatever the path by which it was found."""
    stat = os.stat(folder)
    return stat.st_dev, stat.st_ino


def videos_below(folder: Path, skipped: Counter[str]) -> list[Path]:
    """All videos in a folder and below, in the order of their paths; other files are counted in `skipped`."""
    videos = []
    for place, names in walk(folder):
        videos += [Path(place, name) for name in names if is_video(name)]
        skipped.update(_ending(name) for name in names if not is_video(name))
    return sorted(videos)


def log_skipped(root: Path, skipped: Counter[str]) -> None:
    """Say in one line which files are not taken for videos, by the endings of their names."""
    skipped = Counter({ending: count for ending, count in skipped.items() if ending not in _TEXTS})
    if skipped:
        kinds = [f"{count} {ending}" for ending, count in skipped.most_common(_SHOWN)]
        more = f" and {len(skipped) - _SHOWN} other endings" if len(skipped) > _SHOWN else ""
        log.warning("%s: files that are no videos by their names are skipped: %s%s", root, ", ".join(kinds), more)


def _ending(name: str) -> str:
    return readable_name(os.path.splitext(name)[1].lower()) or "without an ending"


class Videos:
    """Video files below a data root, found by one walk, looked up by name without extension.

    With `frame_folders`, folders that hold JPEGs count too, by their own name. What is no video is said in the log.
    """

    def __init__(self, root: Path, *, frame_folders: bool = False) -> None:
        self._by_path: dict[str, str] = {}
        self._by_stem: dict[str, list[str]] = {}
        self._folders: set[str] = set()
        skipped = Counter[str]()
        for folder, files in walk(root):
            prefix = readable_name(os.path.relpath(folder, root).replace(os.sep, "/"))
            for name in map(readable_name, files):
                if is_video(name):
                    path = name if prefix == "." else f"{prefix}/{name}"
                    self._add(os.path.splitext(path)[0], os.path.splitext(name)[0], path)
                elif not (frame_folders and name.lower().endswith(FRAME_EXTENSIONS)):
                    skipped[_ending(name)] += 1
            if frame_folders and prefix != "." and any(name.lower().endswith(FRAME_EXTENSIONS) for name in files):
                self._folders.add(prefix)
                self._add(prefix, prefix.rpartition("/")[2], prefix)
        log_skipped(root, skipped)

    def _add(self, path_stem: str, stem: str, path: str) -> None:
        self._by_path.setdefault(path_stem, path)
        self._by_stem.setdefault(stem, []).append(path)

    def kind(self, source: str | None) -> Literal["video", "frames"]:
        """Whether a path is a video or a folder of frames; None, which `find` gives for no video, counts as a video."""
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
