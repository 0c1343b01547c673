"""No process of ffmpeg is left; what is read in bulk is the same, in fewer pieces."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil

from preprocessing.ffmpeg.arguments import extraction_argv
from preprocessing.ffmpeg.process import FFmpegReader
from preprocessing.media.frame_stream import extract_frames
from preprocessing.schema import ExtractionSpec

SPEC = ExtractionSpec(height=48)


def test_leaving_early_leaves_no_process(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    path = make_video(tmp_path / "a.mp4", count=200)
    with extract_frames(path, SPEC) as stream:
        next(iter(stream))
    assert not [child for child in psutil.Process().children() if "ffmpeg" in child.name()]


def test_reading_in_bulk_gives_the_same_bytes_in_fewer_pieces(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    argv = extraction_argv(str(make_video(tmp_path / "a.mp4", count=400)), SPEC)
    outputs, counts = [], []
    for in_bulk in (False, True):
        started = time.monotonic()
        with FFmpegReader(argv, 60, in_bulk=in_bulk) as reader:
            chunks = list(reader.chunks())
        assert reader.returncode == 0 and reader.log.num_frames == 400
        outputs.append(b"".join(chunks))
        counts.append(len(chunks))
    assert outputs[0] == outputs[1] and outputs[0].count(b"Content-type: image/jpeg") == 400
    assert counts[1] <= 10 + (time.monotonic() - started) / 0.015  # it waits for 20 ms before most of them
