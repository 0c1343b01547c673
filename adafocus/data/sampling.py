"""Which frames of a clip are taken. Goes in: how many there are and how many are wanted; comes out: 0-based indices.

Evaluation takes the centres of T equal segments (`preprocessing.frame_choice`), training a random frame of each:

    N = 10, T = 4      0 1 2 3 4 5 6 7 8 9
    training           [0 1][2 3][4 5][6 7]    segments of floor(N / T); the remainder at the end is never drawn

Where only some frames of a clip were packed, training draws among those that lie in the segment.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np

from preprocessing.frame_choice import Pad, check_counts, padded_frames

Order = Literal["time", "spread"]


def training_frames(rng: np.random.Generator, num_frames: int, count: int, pad: Pad = "last") -> np.ndarray:
    """`count` frame indices int64 (T,) in ascending order, one drawn from each of `count` equal segments."""
    check_counts(num_frames, count)
    if num_frames < count:
        return padded_frames(num_frames, count, pad)
    segment = num_frames // count
    return np.arange(count) * segment + rng.integers(0, segment, count)


def packed_training_frames(
    rng: np.random.Generator, packed: np.ndarray, num_frames: int, count: int, pad: Pad = "last"
) -> np.ndarray:
    """The same, int64 (T,), of a clip of `num_frames` of which only the frames `packed` (ascending) are there.

    One is drawn from those in each of `count` equal segments; of a segment without any the nearest is taken.
    """
    if len(packed) == num_frames:
        return training_frames(rng, num_frames, count, pad)
    bounds = np.searchsorted(packed, np.arange(count + 1) * num_frames // count)
    first, end = bounds[:-1], bounds[1:]
    centres = (2 * np.arange(count) + 1) * num_frames / (2 * count)
    nearest = np.abs(packed[:, None] - centres).argmin(0)
    return packed[np.where(end > first, rng.integers(first, np.maximum(end, first + 1)), nearest)]


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
