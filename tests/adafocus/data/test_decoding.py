"""Decoding: rows that nobody needs are left out without changing the others, and the JPEGs stay as they were."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adafocus.data.decoding import decode_all, frame_size
from preprocessing.media.jpeg import height_field


def jpeg(height: int, width: int, seed: int = 0, mode: str = "RGB", **options: object) -> np.ndarray:
    """A smooth random picture with some noise, as a JPEG's bytes uint8 (n,)."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (height // 8 + 2, width // 8 + 2, 3), np.uint8))
    pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    pixels = (pixels + rng.integers(-9, 9, pixels.shape)).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", quality=90, **options)
    return np.frombuffer(bytearray(buffer.getvalue()), np.uint8)


def decoded(data: np.ndarray, end: int, *, fast: bool = False) -> torch.Tensor:
    return next(decode_all([data], frame_size(data), end=end, fast=fast)).clone()


SHAPES = ({"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"progressive": True}, {"mode": "L"})
SHAPES += ({"restart_marker_blocks": 3},)


@given(st.integers(20, 140), st.integers(20, 90), st.floats(0.1, 1), st.sampled_from(SHAPES), st.integers(0, 99))
def test_rows_before_the_end_are_those_of_the_whole_picture(
    height: int, width: int, share: float, shape: dict[str, object], seed: int
) -> None:
    data = jpeg(height, width, seed, **shape)
    kept, end = data.copy(), max(1, int(share * height))
    assert torch.equal(decoded(data, end)[:, :end], decoded(data, height)[:, :end])
    assert np.array_equal(data, kept)


def test_the_whole_picture_is_pils() -> None:
    data = jpeg(90, 120, subsampling=2)
    with Image.open(io.BytesIO(data.tobytes())) as image:
        wanted = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    assert (decoded(data, 90).int() - wanted.int()).abs().max() <= 1
    gap = (decoded(data, 90, fast=True).int() - wanted.int()).abs().float()  # of wild colours; real frames: LOG.md
    assert 0 < gap.mean() < 8


def test_rows_are_left_out_only_where_that_is_safe() -> None:
    data = jpeg(64, 48).tobytes()
    at = height_field(data)
    assert at is not None and data[at : at + 2] == (64).to_bytes(2, "big")
    assert height_field(jpeg(64, 48, progressive=True).tobytes()) is None
    with pytest.raises(ValueError, match="not a JPEG"):
        height_field(b"GIF89a")


def test_broken_frames_and_other_sizes_are_told() -> None:
    whole, other = jpeg(64, 48), jpeg(64, 40)
    with pytest.raises(ValueError, match=r"a frame of \(64, 40\) pixels in a clip of \(64, 48\)"):
        list(decode_all([whole, other], (64, 48), end=64, fast=False))
    with pytest.raises(ValueError, match=r"JPEG|marker|Not a"):
        frame_size(np.zeros(100, np.uint8))
