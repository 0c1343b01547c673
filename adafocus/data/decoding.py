"""Decoding of a clip's frames: JPEGs go in, the parts of them that the networks see come out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import simplejpeg
import torch
from torch import Tensor

from adafocus.data.transforms import View
from preprocessing.ffmpeg.arguments import MAX_PIXELS
from preprocessing.media.jpeg import height_field


def frame_size(jpeg: np.ndarray) -> tuple[int, int]:
    """(height, width) in pixels of a JPEG, uint8 (n,). Raises ValueError if it is none, or too large."""
    height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
    if height * width > MAX_PIXELS:
        raise ValueError(f"a picture of {height} x {width} pixels is too large")
    return height, width


def decode_all(jpegs: Iterable[np.ndarray], size: tuple[int, int], *, end: int, fast: bool) -> Iterator[Tensor]:
    """RGB frames uint8 (C, H, W) of JPEGs uint8 (n,) of one size (H, W); all in the same memory.

    Rows from `end` on may stay undecoded, with any content. `fast` interpolates colours and transforms blocks in less
    exact ways: for training, whose pixels are cropped and scaled at random anyhow. Raises ValueError for a JPEG that is
    broken or of another size.
    """
    frame_HW3 = np.empty((*size, 3), np.uint8)
    frame_CHW = torch.from_numpy(frame_HW3).permute(2, 0, 1)
    # The row below takes part in interpolating colours; a decoder works in blocks of 16 rows at most.
    rows = min((end + 2 + 15) // 16 * 16, size[0])
    for data in jpegs:
        own_size = frame_size(data)
        if own_size != size:
            raise ValueError(f"a frame of {own_size} pixels in a clip of {size}")
        field = height_field(data.data) if rows < size[0] else None
        if field is not None:
            data[field : field + 2] = divmod(rows, 256)  # it states that it has only so many rows: all that is decoded
        try:
            simplejpeg.decode_jpeg(data, buffer=frame_HW3, fastdct=fast, fastupsample=fast, strict=False)
        finally:
            if field is not None:
                data[field : field + 2] = divmod(size[0], 256)
        yield frame_CHW


def draw_views(
    jpegs: Iterable[np.ndarray],
    size: tuple[int, int],
    view: View,
    targets: Sequence[tuple[np.ndarray, Tensor]],
    *,
    fast: bool,
) -> None:
    """Decode frames and write the view of each into its targets: (frame indices (T,), pixels uint8 (T, C, S, S)).

    `jpegs` are those of all targets' frames, each once, in ascending order.
    """
    outputs: dict[int, list[Tensor]] = {}
    for frames, out_TCSS in targets:
        for frame, out_CSS in zip(frames.tolist(), out_TCSS, strict=True):
            outputs.setdefault(frame, []).append(out_CSS)
    for frame, decoded in zip(sorted(outputs), decode_all(jpegs, size, end=view.end, fast=fast), strict=True):
        seen_CSS = view.apply(decoded)
        for out_CSS in outputs[frame]:
            out_CSS.copy_(seen_CSS)
