"""ffmpeg is found, and no process of it is left."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from preprocessing.media.ffmpeg import find_ffmpeg
from preprocessing.media.frame_stream import extract_frames
from preprocessing.schema import ExtractionSpec

SPEC = ExtractionSpec(height=48)


def test_leaving_early_leaves_no_process(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    path = make_video(tmp_path / "a.mp4", count=200)
    with extract_frames(path, SPEC) as stream:
        next(iter(stream))
    assert not [child for child in psutil.Process().children() if "ffmpeg" in child.name()]


def test_ffmpeg_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "ffmpeg"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    find_ffmpeg.cache_clear()
    try:
        assert find_ffmpeg() == str(mine)
        monkeypatch.setenv("PATH", "")
        find_ffmpeg.cache_clear()
        assert "imageio_ffmpeg" in find_ffmpeg()
    finally:
        find_ffmpeg.cache_clear()
