"""No process of ffmpeg is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil

from preprocessing.media.frame_stream import extract_frames
from preprocessing.schema import ExtractionSpec

SPEC = ExtractionSpec(height=48)


def test_leaving_early_leaves_no_process(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    path = make_video(tmp_path / "a.mp4", count=200)
    with extract_frames(path, SPEC) as stream:
        next(iter(stream))
    assert not [child for child in psutil.Process().children() if "ffmpeg" in child.name()]
