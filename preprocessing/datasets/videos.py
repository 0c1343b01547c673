"""Where the videos of a data set lie: files and folders of frames below a data root, by name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from preprocessing.media.frame_folder import FRAME_EXTENSIONS

VIDEO_EXTENSIONS = (
    *(".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".flv", ".wmv"),
    *(".mpg", ".mpeg", ".ts", ".ogv", ".3gp"),
)


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
