"""What is packed of a clip holds all that evaluation looks at, and enough to draw among."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.frame_choice import EVALUATED, evaluation_frames, packed_frames


@given(st.integers(1, 5000), st.integers(1, 200))
def test_evaluation_finds_its_frames_and_no_more_than_needed_are_there(num_frames: int, candidates: int) -> None:
    packed = packed_frames(num_frames, candidates)
    assert (np.diff(packed) > 0).all() and packed[0] >= 0 and packed[-1] < num_frames
    for count in (*EVALUATED, candidates):
        for pad in ("first", "last"):
            assert np.isin(evaluation_frames(num_frames, count, pad), packed).all()
    assert len(packed) <= sum(EVALUATED) + candidates
    if num_frames <= max(*EVALUATED, candidates):
        assert len(packed) == num_frames


def test_candidates_are_spread_over_the_clip() -> None:
    added = np.setdiff1d(packed_frames(4800, 96), packed_frames(4800, 1))
    assert len(added) >= 64 and set(np.diff(np.union1d(added, packed_frames(4800, 48)))) <= set(range(1, 101))
