"""Which frames of a clip are looked at in evaluation, and which are packed where not all of them are.

A clip of N frames is cut into T equal segments, and evaluation takes the centre of each:

    N = 10, T = 4      0 1 2 3 4 5 6 7 8 9
    evaluation           ^   ^   ^     ^       int(tick / 2 + tick * i), tick = N / T

Short clips are filled up as each benchmark's published code does: `last` repeats the last frame, `first` (of
Something-Something) takes the first frame T times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

Pad = Literal["first", "last"]
EVALUATED = (8, 12, 16, 48)
"""Numbers of segments whose evaluation frames are always packed."""


def evaluation_frames(num_frames: int, count: int, pad: Pad = "last") -> np.ndarray:
    """`count` frame indices int64 (T,) in ascending order, the same every time.

    With `first` a clip of exactly `count` frames counts as short, as in the published code.
    """
    check_counts(num_frames, count)
    if num_frames < count or (pad == "first" and num_frames == count):
        return padded_frames(num_frames, count, pad)
    tick = num_frames / count
    return np.array([int(tick / 2.0 + tick * i) for i in range(count)], np.int64)


def padded_frames(num_frames: int, count: int, pad: Pad) -> np.ndarray:
    """The frames of a clip that is too short, int64 (T,)."""
    if pad == "first":
        return np.zeros(count, np.int64)
    return np.minimum(np.arange(count), num_frames - 1)


def check_counts(num_frames: int, count: int) -> None:
    """Raise ValueError unless there are frames to take."""
    if num_frames < 1 or count < 1:
        raise ValueError(f"cannot take {count} frames of {num_frames}")


def packed_frames(num_frames: int, candidates: int) -> np.ndarray:
    """The frames of a clip of `num_frames` that `--frames-per-clip` packs: int64, ascending, each once.

    These are the evaluation frames of EVALUATED segments, and `candidates` more, spread alike, for training to draw
    among. All of a clip that has no more frames than the largest of these numbers.
    """
    chosen = [evaluation_frames(num_frames, count) for count in (*EVALUATED, candidates)]
    return np.unique(np.concatenate(chosen))


def packing_rule(candidates: int) -> Callable[[int], list[int]]:
    """The same as a function of the number of frames."""
    return lambda num_frames: packed_frames(num_frames, candidates).tolist() if num_frames else []
