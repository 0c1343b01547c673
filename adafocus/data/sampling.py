"""Which frames of a clip are taken. Goes in: how many there are and how many are wanted; comes out: 0-based indices.

A clip of N frames is cut into T equal segments. Evaluation takes each segment's centre, training a random frame of it:

    N = 10, T = 4      0 1 2 3 4 5 6 7 8 9
    evaluation           ^   ^   ^     ^       int(tick / 2 + tick * i), tick = N / T
    training           [0 1][2 3][4 5][6 7]    segments of floor(N / T); the remainder at the end is never drawn

Short clips are filled up as each benchmark's published code does: `last` repeats the last frame, `first` (of
Something-Something) takes the first frame T times.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np

Pad = Literal["first", "last"]
Order = Literal["time", "spread"]


def evaluation_frames(num_frames: int, count: int, pad: Pad = "last") -> np.ndarray:
    """`count` frame indices int64 (T,) in ascending order, the same every time.

    With `first` a clip of exactly `count` frames counts as short, as in the published code.
    """
    _check(num_frames, count)
    if num_frames < count or (pad == "first" and num_frames == count):
        return _padded(num_frames, count, pad)
    tick = num_frames / count
    return np.array([int(tick / 2.0 + tick * i) for i in range(count)], np.int64)


def training_frames(rng: np.random.Generator, num_frames: int, count: int, pad: Pad = "last") -> np.ndarray:
    """`count` frame indices int64 (T,) in ascending order, one drawn from each of `count` equal segments."""
    _check(num_frames, count)
    if num_frames < count:
        return _padded(num_frames, count, pad)
    segment = num_frames // count
    return np.arange(count) * segment + rng.integers(0, segment, count)


def spread_order(count: int) -> np.ndarray:
    """The order in which any first few of `count` frames are spread over the clip: int64 (T,), a permutation.

    The middle, both ends, then the middles of all gaps, gap by gap, until every frame has come (FrameExit, Ghodrati et
    al. 2021; an option of AdaFocusV2's).
    """
    order = list(dict.fromkeys([(count - 1) // 2, 0, count - 1]))
    while len(order) < count:
        known = sorted(order)
        order += [(left + right) // 2 for left, right in pairwise(known) if right - left > 1]
    return np.array(order, np.int64)


def in_order(frames_T: np.ndarray, order: Order) -> np.ndarray:
    """Ascending frame indices in the order in which the networks see them."""
    return frames_T if order == "time" else frames_T[spread_order(len(frames_T))]


def _padded(num_frames: int, count: int, pad: Pad) -> np.ndarray:
    if pad == "first":
        return np.zeros(count, np.int64)
    return np.minimum(np.arange(count), num_frames - 1)


def _check(num_frames: int, count: int) -> None:
    if num_frames < 1 or count < 1:
        raise ValueError(f"cannot take {count} frames of {num_frames}")
