"""Videos to predict: files, folders and globs in, paths out."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from preprocessing.addresses import is_url, without_secrets
from preprocessing.datasets.videos import videos_below
from preprocessing.media.frame_folder import FRAME_EXTENSIONS
from preprocessing.schema import UserError


def find_videos(inputs: Sequence[str]) -> list[Path]:
    """Paths of videos, each once: files as they are given; all videos below a folder, or the folder itself if it holds
    frames; matches of a glob.

    Raises UserError for a folder or a glob in which there is nothing, and for what is no path. A file need not exist:
    it gets a row with the reason, like a file that cannot be read.
    """
    videos: list[Path] = []
    for text in inputs:
        if not text:
            raise UserError("a video's name is empty: is a variable of the shell not set?")
        if is_url(text):
            raise UserError(f"{without_secrets(text)} is an address: videos to predict are files on this machine")
        path = Path(text)
        if os.path.isdir(path):
            matches = videos_below(path, Counter())
            if not matches and any(name.lower().endswith(FRAME_EXTENSIONS) for name in os.listdir(path)):
                matches = [path]
        elif not os.path.exists(path) and glob.has_magic(text):
            matches = sorted(map(Path, glob.glob(text, recursive=True)))
        else:
            matches = [path]
        if not matches:
            raise UserError(f"there is no video in {text}")
        videos += matches
    return list(dict.fromkeys(videos))
