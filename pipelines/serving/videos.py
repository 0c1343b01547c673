"""Videos to predict: files, folders and globs in, paths out."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from preprocessing.datasets.videos import VIDEO_EXTENSIONS
from preprocessing.media.frame_folder import FRAME_EXTENSIONS
from preprocessing.schema import UserError


def find_videos(inputs: Sequence[str]) -> list[Path]:
    """Paths of videos, each once: files as they are given; all videos below a folder, or the folder itself if it holds
    frames; matches of a glob.

    Raises UserError for a folder or a glob in which there is nothing. A file need not exist: it gets a row with the
    reason, like a file that cannot be read.
    """
    videos: list[Path] = []
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            matches = sorted(item for item in path.rglob("*") if item.suffix.lower() in VIDEO_EXTENSIONS)
            if not matches and any(name.lower().endswith(FRAME_EXTENSIONS) for name in os.listdir(path)):
                matches = [path]
        elif not path.exists() and glob.has_magic(text):
            matches = sorted(map(Path, glob.glob(text, recursive=True)))
        else:
            matches = [path]
        if not matches:
            raise UserError(f"there is no video in {text}")
        videos += matches
    return list(dict.fromkeys(videos))
