"""Which frames of a clip are taken. Goes in: how many there are and how many are wanted; comes out: 0-based indices.

Evaluation takes the centres of T equal segments (`preprocessing.frame_choice`), training a random frame of each:

    N = 10, T = 4      0 1 2 3 4 5 6 7 8 9
    training           [0 1][2 3][4 5][6 7]    segments of floor(N / T); the remainder at the end is never drawn

Where only some frames of a clip were packed, training draws among those that lie in the segment. Candidates among which
Uni-AdaFocus chooses are spread over short clips too: frames repeat in place.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np

from adafocus.config.schema import DataConfig
from preprocessing.frame_choice import Pad, check_counts, evaluation_frames, padded_frames

Order = Literal["time", "spread"]


def clip_frames(
    data: DataConfig,
    num_frames: int,
    pad: Pad = "last",
    rng: np.random.Generator | None = None,
    packed: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Frames of a clip, int64 (T,), for the glancer and for the focuser, in the order in which they see them; for the
    focuser all candidates, where it is to choose. With random numbers as in training, else as in evaluation; `packed`
    are the frames that are there, None for all."""

    def pick(count: int) -> np.ndarray:
        if rng is None:
            return evaluation_frames(num_frames, count, pad)
        if packed is None:
            return training_frames(rng, num_frames, count, pad)
        return packed_training_frames(rng, packed, num_frames, count, pad)

    candidates = data.num_candidates
    if candidates and data.focus_frames == "shared":
        focus = candidate_frames(num_frames, candidates, rng, packed)
        return focus[glance_places(data, rng)], focus
    glance = in_order(pick(data.num_frames), data.frame_order)
    if data.focus_frames == "shared":
        return glance, glance
    return glance, candidate_frames(num_frames, candidates, rng, packed) if candidates else pick(data.num_focus_frames)


def glance_places(data: DataConfig, rng: np.random.Generator | None = None) -> np.ndarray:
    """Which of the candidates the glancer sees where frames are shared, int64 (T,): the middle of each equal group, or
    with random numbers any of it."""
    size = data.num_candidates // data.num_frames
    offset = size // 2 if rng is None else rng.integers(0, size, data.num_frames)
    return np.arange(data.num_frames) * size + offset


def candidate_frames(
    num_frames: int, count: int, rng: np.random.Generator | None = None, packed: np.ndarray | None = None
) -> np.ndarray:
    """`count` frame indices int64, ascending, of equal segments of a clip of any length: their centres, or drawn."""
    check_counts(num_frames, count)
    if rng is not None and packed is not None and len(packed) < num_frames:
        return packed_training_frames(rng, packed, num_frames, count)
    tick = num_frames / count
    if rng is None:
        return np.array([int(tick / 2.0 + tick * i) for i in range(count)], np.int64)  # as in any evaluation
    return np.floor((np.arange(count) + rng.random(count)) * tick).astype(np.int64).clip(max=num_frames - 1)


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
