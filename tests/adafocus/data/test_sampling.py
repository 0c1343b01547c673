"""Frames are taken where the published code takes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adafocus.data.sampling import training_frames
from preprocessing.frame_choice import evaluation_frames

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "eval_indices.json").read_text())
PADS = st.sampled_from(["first", "last"])


def test_evaluation_is_the_reference_sampler() -> None:
    cases = [
        (int(count), int(num_frames), "last", indices)
        for count, rows in GOLDEN["untrimmed"].items()
        for num_frames, indices in rows.items()
    ]
    for num_frames, pair in GOLDEN["sth_glancer8_focuser12"].items():
        cases += [(count, int(num_frames), "first", row) for count, row in zip((8, 12), pair, strict=True)]
    assert len(cases) > 600
    for count, num_frames, pad, indices in cases:
        assert (evaluation_frames(num_frames, count, pad) + 1).tolist() == indices


@given(st.integers(1, 5000), st.integers(1, 64), PADS)
def test_evaluation_frames_exist_and_ascend(num_frames: int, count: int, pad: str) -> None:
    found = evaluation_frames(num_frames, count, pad)
    assert found.shape == (count,)
    assert found.min() >= 0 and found.max() < num_frames
    assert (np.diff(found) >= 0).all()
    if num_frames > count:
        assert len(set(found.tolist())) == count


@given(st.integers(1, 5000), st.integers(1, 64), PADS, st.integers(0, 2**32))
def test_training_takes_one_frame_of_each_segment(num_frames: int, count: int, pad: str, seed: int) -> None:
    found = training_frames(np.random.default_rng(seed), num_frames, count, pad)
    assert found.shape == (count,)
    if num_frames >= count:
        assert (found // (num_frames // count) == np.arange(count)).all()
    elif pad == "first":
        assert (found == 0).all()
    else:
        assert found.tolist() == [*range(num_frames)] + [num_frames - 1] * (count - num_frames)


def test_training_reaches_every_frame_of_a_segment() -> None:
    rng = np.random.default_rng(0)
    drawn = np.stack([training_frames(rng, 30, 3) for _ in range(400)])
    assert [sorted(set(column)) for column in drawn.T] == [[*range(10)], [*range(10, 20)], [*range(20, 30)]]


def test_nothing_to_take() -> None:
    with pytest.raises(ValueError, match="cannot take 8 frames of 0"):
        evaluation_frames(0, 8)
