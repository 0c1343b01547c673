"""A written video holds the frames that were given, the same bytes every time, or does not exist."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.tiny import numbered_frames
from preprocessing.ffmpeg.encode import encode_video
from preprocessing.media.extraction import Extraction
from preprocessing.media.frame_stream import extract_frames
from preprocessing.schema import ExtractionSpec, UserError

SPEC = ExtractionSpec(height=48)


def frames_of(path: Path, spec: ExtractionSpec = SPEC, **options: object) -> tuple[list[bytes], Extraction]:
    with extract_frames(path, spec, **options) as stream:
        jpegs = list(stream)
    return jpegs, stream.result


def pixels(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)


def test_frames_are_those_that_were_encoded(tmp_path: Path) -> None:
    frames = numbered_frames(12)
    encode_video(tmp_path / "a.mp4", frames, fps=10, crf=1)
    jpegs, result = frames_of(tmp_path / "a.mp4")
    assert replace(result, video=None) == Extraction("ok", "", 12, 10.0, 48, 64, 1.2, 0)
    for jpeg, frame in zip(jpegs, frames, strict=True):
        assert np.abs(pixels(jpeg) - frame).mean() < 3


def test_encode_is_deterministic_and_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    frames = numbered_frames(5)
    encode_video(tmp_path / "a.mp4", frames, 10)
    encode_video(tmp_path / "b.mp4", iter(frames), 10)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    with pytest.raises(UserError, match=r"cannot write .*odd\.mp4: .*width not divisible by 2"):
        encode_video(tmp_path / "odd.mp4", [frame[:, :61] for frame in frames], 10)
    with pytest.raises(ValueError, match="the first one"):
        encode_video(tmp_path / "c.mp4", [frames[0], frames[1][:10]], 10)
    with pytest.raises(ValueError, match="no frames"):
        encode_video(tmp_path / "d.mp4", [], 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]
