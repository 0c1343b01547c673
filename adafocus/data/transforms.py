"""Geometry of a clip: which part of its frames the networks see. One view holds for all frames of a clip.

Letters: T frames, C colours, H W pixels of the source, S side of the square that the networks see.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class View:
    """A part of the source (pixels), scaled to `scaled`, of which a square window is kept, perhaps mirrored."""

    top: int
    left: int
    height: int
    width: int
    scaled: tuple[int, int]
    """(height, width) after scaling."""
    window: tuple[int, int]
    """(top, left) of the square in the scaled picture."""
    side: int
    flip: bool = False

    def apply(self, frame_CHW: Tensor) -> Tensor:
        """The view of one frame, uint8 (C, S, S), with colours last in memory, as JPEG decoders write them and
        convolutions like them. No resampling where the size does not change."""
        rows, cols = self._needed()
        place = (_shifted(rows.source, self.top), _shifted(cols.source, self.left))
        part_hwC = np.ascontiguousarray(frame_CHW.permute(1, 2, 0).numpy()[place])  # numpy copies rows fastest
        seen_1Chw = torch.from_numpy(part_hwC)[None].permute(0, 3, 1, 2)  # numpy's [None] would make scaling slow
        if seen_1Chw.shape[2:] != (rows.length, cols.length):
            size = (rows.length, cols.length)
            seen_1Chw = F.interpolate(seen_1Chw, size=size, mode="bilinear", antialias=True)
        seen_CSS = seen_1Chw[0]
        if seen_CSS.shape[1:] != (self.side, self.side):
            top, left = self.window[0] - rows.start, self.window[1] - cols.start
            seen_CSS = seen_CSS[:, top : top + self.side, left : left + self.side]
        return seen_CSS.flip(-1) if self.flip else seen_CSS

    @property
    def end(self) -> int:
        """Rows of the source from here on are not needed."""
        return self.top + self._needed()[0].source.stop

    def _needed(self) -> tuple[_Needed, _Needed]:
        """Of the part's rows and columns."""
        top, left = self.window
        return (
            _needed(self.height, self.scaled[0], top, self.side),
            _needed(self.width, self.scaled[1], left, self.side),
        )

    def source_box(self, row: int, column: int, size: int) -> tuple[float, float, float, float]:
        """A square of the view (not mirrored) in pixels of the source: (top, left, bottom, right)."""
        return self.source_part((row, column, row + size, column + size))

    def source_part(self, box: Sequence[float]) -> tuple[float, float, float, float]:
        """Likewise any box of the view. Both (top, left, bottom, right)."""
        down, across = self.height / self.scaled[0], self.width / self.scaled[1]
        top, left, bottom, right = box
        return (
            self.top + (self.window[0] + top) * down,
            self.left + (self.window[1] + left) * across,
            self.top + (self.window[0] + bottom) * down,
            self.left + (self.window[1] + right) * across,
        )

    def place_boxes(self, boxes_T4: np.ndarray, height: int, width: int) -> np.ndarray:
        """Boxes given as fractions of a source of `height` x `width`, in pixels of the view. Both (top, left, bottom,
        right), float32 (T, 4); what lies outside the view has coordinates outside [0, S]."""
        scale = np.array([self.scaled[0] / self.height, self.scaled[1] / self.width] * 2)
        corner = np.array([self.top, self.left] * 2)
        placed = (boxes_T4 * np.array([height, width] * 2) - corner) * scale - np.array([*self.window] * 2)
        if self.flip:
            placed = np.stack([placed[:, 0], self.side - placed[:, 3], placed[:, 2], self.side - placed[:, 1]], axis=1)
        return placed.astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Needed:
    """One axis of a picture: the source pixels to scale, and where they come to lie in the scaled picture."""

    source: slice
    start: int
    length: int


@functools.lru_cache(4096)  # asked for each frame of a clip
def _needed(size: int, scaled: int, window: int, side: int) -> _Needed:
    """The part of an axis that has to be scaled so that `side` pixels from `window` on come out as from all of it.

    Source and result have common edges every size / gcd and scaled / gcd pixels; a cut at such edges, some pixels away
    from the window, does not move the sampling grid.
    """
    step = math.gcd(size, scaled)
    tile, margin = scaled // step, 2 + 2 * scaled // size
    first = max((window - margin) // tile, 0)
    last = min(-(-(window + side + margin) // tile), step)
    return _Needed(slice(first * (size // step), last * (size // step)), first * tile, (last - first) * tile)


def _shifted(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def evaluation_view(height: int, width: int, resize: int, crop: int) -> View:
    """The short side scaled to `resize`, the centre square of `crop` kept (all in pixels)."""
    if crop > resize:
        raise ValueError(f"the crop ({crop}) is larger than the short side ({resize})")
    short = min(height, width)
    scaled = (resize * height // short, resize * width // short)
    window = (round((scaled[0] - crop) / 2), round((scaled[1] - crop) / 2))
    return View(0, 0, height, width, scaled, window, crop)


def training_view(
    rng: np.random.Generator, height: int, width: int, crop: int, scales: Sequence[float], *, flip: bool
) -> View:
    """Group multi-scale crop (Wang et al., Temporal Segment Networks, 2016): sides drawn from `scales` times the
    short side, the two at most one step apart, at one of 13 fixed places; mirrored half of the time if `flip`."""
    short = min(height, width)
    sides = [crop if abs(int(short * scale) - crop) < 3 else int(short * scale) for scale in scales]
    sides = [min(side, short) for side in sides]
    pairs = [(high, wide) for i, high in enumerate(sides) for j, wide in enumerate(sides) if abs(i - j) <= 1]
    high, wide = pairs[rng.integers(len(pairs))]
    top, left = _places(height - high, width - wide)[rng.integers(13)]
    mirrored = bool(rng.integers(2)) and flip
    return View(top, left, high, wide, (crop, crop), (0, 0), crop, mirrored)


def _places(down: int, right: int) -> list[tuple[int, int]]:
    """Corners, centre, middles of the sides and the four places between, in quarters of the room there is."""
    quarters = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3)]
    return [(down // 4 * y, right // 4 * x) for y, x in quarters]
