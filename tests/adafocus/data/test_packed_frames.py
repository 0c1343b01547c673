"""Data sets of which only some frames were packed: evaluation is bit for bit the same, training draws among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adafocus.config.schema import DataConfig
from adafocus.data.batches import ClipMaker
from adafocus.data.clip_table import ClipTable, ShardError
from adafocus.data.loader import ClipLoader
from adafocus.data.sampling import packed_training_frames, training_frames
from adafocus.data.stream import ClipStream
from helpers import packing
from preprocessing.frame_choice import EVALUATED, packed_frames
from preprocessing.schema import Clip, DatasetInfo, UserError
from preprocessing.shards.planning.job import Job
from preprocessing.shards.storage import Store

CANDIDATES = 24
DATA = DataConfig(num_frames=8, num_focus_frames=8, resize=40, crop=32)
LENGTHS = {"train": (150, 97, 30, 61), "val": (200, 49, 48, 5)}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> dict[str, Path]:
    """Eight clips of 5 to 200 frames, packed whole and in part."""
    root, clips, outs = tmp_path_factory.mktemp("videos"), [], {}
    for split, lengths in LENGTHS.items():
        for count in lengths:
            make_video(root / f"{count}.mp4", count=count, width=80, seed=count)
            boxes = tuple((0.001 * n, 0.2, 0.5, 0.6) for n in range(count))
            clips.append(Clip("x", split, f"clip {count}", f"{count}.mp4", (count % 2,), boxes=boxes))
    for name, number in (("whole", None), ("part", CANDIDATES)):
        outs[name] = tmp_path_factory.mktemp(name)
        spec = replace(packing.SPEC, frames_per_clip=number)
        packing.pack(Job(Store(outs[name]), root, DatasetInfo("x", ("a", "b")), spec, clips_per_shard=3), clips)
    return outs


@pytest.mark.parametrize("count", [*EVALUATED, CANDIDATES, 4])
@pytest.mark.parametrize("order", ["time", "spread"])
def test_evaluation_is_bit_for_bit_that_of_packing_everything(count: int, order: str, both: dict[str, Path]) -> None:
    own = {"num_focus_frames": 12, "focus_frames": "own"} if order == "time" else {"num_focus_frames": count}
    data = replace(DATA, num_frames=count, frame_order=order, **own)
    whole, part = (list(ClipLoader(both[name], "val", data, batch_size=2, train=False)) for name in ("whole", "part"))
    for one, other in zip(whole, part, strict=True):
        assert one.clip_ids == other.clip_ids and torch.equal(one.labels_BL, other.labels_BL)
        assert torch.equal(one.glance_BTCHW, other.glance_BTCHW) and torch.equal(one.focus_BTCHW, other.focus_BTCHW)
        assert one.boxes_BT4 is not None and other.boxes_BT4 is not None
        assert torch.equal(one.boxes_BT4, other.boxes_BT4)


def test_training_draws_packed_frames_and_takes_the_same_pixels(both: dict[str, Path]) -> None:
    table, whole = ClipTable(both["part"], "train"), ClipTable(both["whole"], "train")
    maker, drawn = ClipMaker(table, DATA, 0, True), set[int]()
    for epoch in range(60):
        for number in range(len(table)):
            frames, packed = maker.frames(epoch, number), table.packed(number)
            assert packed is None or np.isin(frames, packed).all()
            drawn |= set(frames.tolist()) if number == 0 else set()
    assert drawn == set(table.packed(0).tolist()) == set(packed_frames(150, CANDIDATES).tolist())
    frames = maker.frames(3, 0)
    pairs = zip(table.read(0, frames), whole.read(0, frames), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)
    left_out = min(set(range(150)) - drawn)
    with pytest.raises(ShardError, match=f"frame {left_out} was not packed"):
        table.read(0, np.array([left_out]))


def test_a_stream_makes_the_same_clips(both: dict[str, Path]) -> None:
    options = {"batch_size": 1, "train": False}
    one = {b.clip_ids[0]: b.glance_BTCHW for b in ClipLoader(both["part"], "val", DATA, **options)}
    other = {b.clip_ids[0]: b.glance_BTCHW for b in ClipStream(both["part"], "val", DATA, **options)}
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("count", "train", "words"),
    [
        (10, False, "the evaluation frames of 8, 12, 16, 48, 24 frames a clip are there, those of 10 are not"),
        (49, True, "of which 49 frames a clip cannot be drawn"),
    ],
)
def test_frames_that_were_left_out_are_missed_before_the_work(
    count: int, train: bool, words: str, both: dict[str, Path]
) -> None:
    data = replace(DATA, num_frames=count, num_focus_frames=count)
    with pytest.raises(UserError, match=words):
        ClipLoader(both["part"], "train" if train else "val", data, batch_size=2, train=train)
    list(ClipLoader(both["whole"], "train" if train else "val", data, batch_size=2, train=train))


@given(st.integers(1, 3000), st.integers(1, 64), st.integers(1, 48), st.integers(0, 2**32))
def test_a_draw_rises_and_stays_by_its_segment(num_frames: int, candidates: int, count: int, seed: int) -> None:
    packed, rng = packed_frames(num_frames, candidates), np.random.default_rng(seed)
    found = packed_training_frames(rng, packed, num_frames, count)
    assert found.shape == (count,) and np.isin(found, packed).all() and (np.diff(found) >= 0).all()
    if len(packed) == num_frames:
        again = np.random.default_rng(seed)
        assert found.tolist() == training_frames(again, num_frames, count).tolist()
    else:
        centres = (np.arange(count) + 0.5) * num_frames / count
        assert np.abs(found - centres).max() <= num_frames / count / 2 + num_frames / 48
