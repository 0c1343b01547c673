"""Packing some frames of each clip gives the same bytes as packing all, and says which they are."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.packing import SPEC, pack
from preprocessing.frame_choice import packed_frames
from preprocessing.schema import Clip, DatasetInfo, ExtractionSpec, SourceBox, UserError
from preprocessing.shards.index import INDEX, Index, read_index
from preprocessing.shards.planning.job import Job
from preprocessing.shards.statistics import left_out_text, summarise
from preprocessing.shards.storage import Store
from preprocessing.shards.verify import Problem, verify

CANDIDATES = 20
BOXES = tuple(SourceBox(number, number / 4, 1, 8, 8, "boxes.csv") for number in (3, 4, 50, 97))
CUT = Clip("x", "train", "cut", "long.mp4", (0,), start_s=6.05, end_s=15.0)
CLIPS = [
    Clip("x", "train", "long", "long.mp4", (0,), boxes=tuple((n / 200, 0.0, 1.0, 1.0) for n in range(190))),
    CUT,
    Clip("x", "train", "short", "short.mp4", (1,)),
    Clip("x", "val", "damaged", "damaged.mp4", (1,)),
    Clip("x", "val", "folder", "folder", (1,), source_kind="frames"),
    Clip("x", "val", "lost", "lost.mp4", (1,)),
    Clip("x", "val", "boxed", "long.mp4", (1,), source_boxes=BOXES),
]
SPECS = {"native": SPEC, "rate": replace(SPEC, fps=7.0), "capped": replace(SPEC, max_frames=150)}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    root = tmp_path_factory.mktemp("videos")
    make_video(root / "long.mp4", count=190)
    make_video(root / "short.mp4", count=30, seed=1)
    data = bytearray(make_video(root / "damaged.mp4", count=120, seed=2).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    (root / "damaged.mp4").write_bytes(data)
    return root


@pytest.fixture(scope="module", params=SPECS)
def both(
    request: pytest.FixtureRequest, videos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Index, Path, Index, Path]:
    """The same clips packed whole, and some frames of each: index and folder of both."""
    spec, found = SPECS[request.param], []
    for each in (spec, replace(spec, frames_per_clip=CANDIDATES)):
        out = tmp_path_factory.mktemp("out")
        job = Job(Store(out), videos, DatasetInfo("x", ("a", "b")), each, clips_per_shard=3)
        frames_from(videos)
        found += [pack(job, CLIPS), out]
    return tuple(found)


def frames_from(videos: Path) -> None:
    """Make the folder of frames out of a packed video, once."""
    folder = videos / "folder"
    if folder.is_dir():
        return
    clip = Clip("x", "train", "long", "long.mp4", (0,))
    pack(Job(Store(videos / "once"), videos, DatasetInfo("x", ("a", "b")), SPEC), [clip])
    folder.mkdir()
    for name, data in members(videos / "once").items():
        if name.endswith(".jpg"):
            (folder / name.split(".")[1]).with_suffix(".jpg").write_bytes(data)


def members(out: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            found |= {item.name: tar.extractfile(item).read() for item in tar}
    return found


def test_the_frames_are_those_of_packing_all(both: tuple[Index, Path, Index, Path]) -> None:
    whole, whole_out, part, part_out = both
    all_frames, some = members(whole_out), members(part_out)
    jpegs = {name: data for name, data in some.items() if name.endswith(".jpg")}
    assert jpegs.items() <= all_frames.items() and len(jpegs) < len(all_frames)
    same = ("clip_id", "status", "error", "height", "width", "fps", "duration_s")
    for one, other in zip(whole.table.to_pylist(), part.table.to_pylist(), strict=True):
        assert {name: one[name] for name in same} == {name: other[name] for name in same}
        if not one["num_frames"]:
            assert other["frame_indices"] is None
            continue
        expected = packed_frames(one["num_frames"], CANDIDATES).tolist()
        assert [*range(one["num_frames"])] == expected or other["frame_indices"] == expected
        assert other["source_frames"] == (None if other["frame_indices"] is None else one["num_frames"])
        assert [name for name in jpegs if name.startswith(f"{other['key']}.")] == [
            f"{other['key']}.{frame + 1:06d}.jpg" for frame in expected
        ]
        member = json.loads(some[f"{other['key']}.json"])
        assert member.get("frame_indices") == other["frame_indices"]


def test_such_a_data_set_is_sound_and_says_what_it_saves(both: tuple[Index, Path, Index, Path]) -> None:
    whole, _, part, out = both
    assert not [item for item in verify(Store(out)) if isinstance(item, Problem)]
    left_out = whole.table["num_frames"].to_pylist()
    summary = summarise(part)
    assert summary["left_out_frames"] == sum(left_out) - summary["num_frames"] > 0
    assert 0.8 < (summary["left_out_bytes"] + summary["num_bytes"]) / summarise(whole)["num_bytes"] < 1.25
    assert f"{summary['left_out_frames']} more frames were left out (--frames-per-clip 20)" in left_out_text(summary)
    assert not left_out_text(summarise(whole))
    assert part.digest != whole.digest and read_index(Store(out)).spec.frames_per_clip == CANDIDATES


def test_boxes_are_those_of_the_packed_frames(both: tuple[Index, Path, Index, Path]) -> None:
    whole, _, part, _ = both
    rows = zip(whole.table.to_pylist(), part.table.to_pylist(), strict=True)
    found = {one["clip_id"]: (one, other) for one, other in rows if one["boxes"] is not None}
    assert "boxed" in found
    for one, other in found.values():
        assert np.array_equal([one["boxes"][frame] for frame in other["frame_indices"]], other["boxes"], equal_nan=True)
    assert {row["clip_id"] for row in part.table.to_pylist() if row["boxes"]} == {*found}


def test_a_folder_goes_on_only_with_the_same_number(videos: Path, tmp_path: Path) -> None:
    from preprocessing.shards.planning.worklist import open_worklist

    def begin(frames_per_clip: int | None) -> None:
        spec = ExtractionSpec(height=48, frames_per_clip=frames_per_clip)
        job = Job(Store(tmp_path), videos, DatasetInfo("x", ("a", "b")), spec)
        open_worklist(job, CLIPS, [1] * len(CLIPS))

    begin(8)
    begin(8)
    with pytest.raises(UserError, match="was started with frames_per_clip = 8, now it is None"):
        begin(None)
    assert not (tmp_path / INDEX).exists()
