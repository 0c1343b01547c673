"""The same clips, the same pixels, whatever the number of workers and ranks; nothing twice, nothing lost."""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from adafocus.config.schema import DataConfig
from adafocus.data.clip_table import ClipTable, ShardError
from adafocus.data.loader import Batch, ClipLoader, evaluation_clip
from adafocus.data.stream import ClipStream
from helpers import packing
from preprocessing.media.frame_stream import extract_frames
from preprocessing.schema import Clip, DatasetInfo, ExtractionSpec, UserError
from preprocessing.shards.index import INDEX, read_index
from preprocessing.shards.planning.job import Job
from preprocessing.shards.storage import Store

DATA = DataConfig(num_frames=4, num_focus_frames=4, resize=40, crop=32)
TRIMMED = DataConfig(num_frames=8, num_focus_frames=12, focus_frames="own", resize=40, crop=32)
NUM_CLIPS = {"train": 26, "val": 11}


def pack(root: Path, out: Path, make_video: Callable[..., Path], info: DatasetInfo, boxes: bool = True) -> Path:
    """37 clips of 3 to 39 frames in shards of 4; one more that is missing."""
    clips = []
    for number in range(sum(NUM_CLIPS.values())):
        count = 3 + number
        make_video(root / f"{number}.mp4", count=count, width=80, seed=number)
        box = tuple((0.1, 0.2, 0.5, 0.6) for _ in range(count)) if boxes else None
        labels = (number % 3, 2) if number % 3 == 0 else (number % 3,)
        clips.append(Clip("x", "train" if number < 26 else "val", f"clip/{number}", f"{number}.mp4", labels, boxes=box))
    clips.append(Clip("x", "val", "lost", "lost.mp4", (0,)))
    packing.pack(Job(Store(out), root, info, ExtractionSpec(height=48), clips_per_shard=4), clips)
    return out


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def shards(root: Path, tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    return pack(root, tmp_path_factory.mktemp("shards"), make_video, DatasetInfo("x", ("a", "b", "c")))


@pytest.fixture(scope="module")
def trimmed(root: Path, tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    info = DatasetInfo("x", ("a", "b", "c"), flip=False, pad="first")
    return pack(root, tmp_path_factory.mktemp("trimmed"), make_video, info, boxes=False)


def load(shards: Path, split: str = "train", epoch: int = 0, **options: object) -> list[Batch]:
    settings = {"data": DATA, "batch_size": 4, "train": split == "train"} | options
    loader = ClipLoader(shards, split, **settings)
    loader.set_epoch(epoch)
    batches = list(loader)
    assert len(batches) == len(loader)
    return batches


def ids(batches: list[Batch]) -> list[str]:
    return [clip_id for batch in batches for clip_id in batch.clip_ids]


def same(one: Batch, other: Batch) -> bool:
    tensors = [(x.glance_BTCHW, x.focus_BTCHW, x.labels_BL, x.boxes_BT4) for x in (one, other)]
    return one.clip_ids == other.clip_ids and all(torch.equal(a, b) for a, b in zip(*tensors, strict=True))


def test_batches_have_the_promised_shapes(shards: Path) -> None:
    batch = load(shards)[0]
    assert batch.glance_BTCHW.shape == (4, 4, 3, 32, 32) and batch.glance_BTCHW.dtype == torch.uint8
    assert batch.focus_BTCHW is batch.glance_BTCHW
    assert batch.labels_BL.shape == (4, 2) and batch.labels_BL.dtype == torch.int64
    assert batch.boxes_BT4 is not None and batch.boxes_BT4.shape == (4, 4, 4)
    number = int(batch.clip_ids[0].removeprefix("clip/"))
    assert batch.labels_BL[0].tolist() == ([0, 2] if number % 3 == 0 else [number % 3, -1])
    moved = batch.to("cpu")
    assert moved.focus_BTCHW is moved.glance_BTCHW


LOAD = """
import sys
from adafocus.config.schema import DataConfig
from adafocus.data.loader import ClipLoader
data = DataConfig(num_frames=4, num_focus_frames=4, resize=40, crop=32)
print(len(list(ClipLoader(sys.argv[1], "val", data, batch_size=4, train=False, num_workers=1))))
"""


def test_workers_find_their_sockets_where_the_name_of_the_temporary_folder_is_long(
    shards: Path, tmp_path: Path
) -> None:
    folder = tmp_path / ("slurm_jobdir_" * 9)
    folder.mkdir()
    environment = {**os.environ, "TMPDIR": str(folder)}
    argv = [sys.executable, "-c", LOAD, str(shards)]
    ran = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=100)
    assert ran.stdout == "3\n", ran.stderr


def test_workers_change_nothing(shards: Path) -> None:
    for split in ("train", "val"):
        alone, helped = load(shards, split), load(shards, split, num_workers=2)
        assert all(same(one, other) for one, other in zip(alone, helped, strict=True))
        assert helped[0].focus_BTCHW is helped[0].glance_BTCHW


def test_workers_stop_at_once_with_their_loader(shards: Path) -> None:
    loader = ClipLoader(shards, "val", DATA, batch_size=4, train=False, num_workers=2)
    assert len(list(loader)) == 3
    started = time.monotonic()
    del loader
    assert time.monotonic() - started < 2
    assert not [child for child in psutil.Process().children() if "pt_data_worker" in child.name()]


def test_an_epoch_is_a_new_order_and_new_crops_but_the_same_each_time(shards: Path) -> None:
    first, second = load(shards, epoch=0), load(shards, epoch=1)
    assert all(same(one, other) for one, other in zip(first, load(shards, epoch=0), strict=True))
    assert ids(first) != ids(second)
    assert len(first) == 6 and len(set(ids(first))) == 24  # the incomplete seventh batch is left out
    other_seed = load(shards, epoch=0, seed=1)
    assert ids(first) != ids(other_seed)
    views = [dict(zip(ids(x), torch.cat([b.glance_BTCHW for b in x]), strict=True)) for x in (first, second)]
    common = set(views[0]) & set(views[1])
    assert sum(not torch.equal(views[0][name], views[1][name]) for name in common) > len(common) / 2


def test_ranks_share_the_global_batches_of_one_rank(shards: Path) -> None:
    alone = load(shards, batch_size=4)
    halves = [load(shards, batch_size=2, rank=rank, world_size=2) for rank in range(2)]
    for whole, first, second in zip(alone, *halves, strict=True):
        assert whole.clip_ids == first.clip_ids + second.clip_ids
        assert torch.equal(whole.glance_BTCHW, torch.cat([first.glance_BTCHW, second.glance_BTCHW]))


@pytest.mark.parametrize(("world_size", "batch_size"), itertools.product([1, 2, 3, 5], [1, 4, 64]))
def test_evaluation_sees_each_clip_once(shards: Path, world_size: int, batch_size: int) -> None:
    shares = [
        ids(load(shards, "val", batch_size=batch_size, rank=rank, world_size=world_size)) for rank in range(world_size)
    ]
    expected = [f"clip/{number}" for number in range(26, 37)]
    assert sorted(itertools.chain(*shares)) == sorted(expected)
    assert shares[0] == expected[::world_size]


def test_a_split_smaller_than_a_batch_is_one_batch(shards: Path) -> None:
    (batch,) = load(shards, batch_size=64)
    assert len(set(batch.clip_ids)) == 26
    shares = [load(shards, batch_size=64, rank=rank, world_size=3) for rank in range(3)]
    assert sorted(ids([batch for share in shares for batch in share])) == sorted(batch.clip_ids)


@pytest.mark.parametrize(("batch_size", "accumulate", "clips"), [(2, 2, 24), (3, 2, 24), (4, 4, 26), (9, 13, 26)])
def test_micro_batches_share_the_global_batches(batch_size: int, accumulate: int, clips: int, shards: Path) -> None:
    """The micro-batches of two ranks, in turn, are the batches of one; also where the split holds only one of them."""
    whole = load(shards, batch_size=2 * batch_size * accumulate)
    ranks = [load(shards, batch_size=batch_size, accumulate=accumulate, rank=rank, world_size=2) for rank in range(2)]
    assert len(ranks[0]) == len(ranks[1]) == accumulate * len(whole)
    in_turn = [batch for pair in zip(*ranks, strict=True) for batch in pair]
    assert ids(in_turn) == ids(whole) and len(ids(whole)) == clips and all(batch.clip_ids for batch in in_turn)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_going_on_inside_an_epoch(shards: Path, num_workers: int) -> None:
    whole = load(shards, epoch=3)
    loader = ClipLoader(shards, "train", DATA, batch_size=4, train=True, num_workers=num_workers)
    loader.set_epoch(3)
    started = list(itertools.islice(loader, 2))
    again = ClipLoader(shards, "train", DATA, batch_size=4, train=True, num_workers=num_workers)
    again.set_epoch(3)
    again.skip(2)
    assert len(again) == 6
    rest = list(again)
    assert all(same(one, other) for one, other in zip(whole, started + rest, strict=True))
    assert len(list(again)) == 6  # the next iteration starts from the front
    with pytest.raises(ValueError, match="cannot skip 7 of 6"):
        again.skip(7)


def test_trimmed_clips_share_one_crop_between_glance_and_focus(trimmed: Path) -> None:
    for split in ("train", "val"):
        for batch in load(trimmed, split, data=TRIMMED):
            assert batch.glance_BTCHW.shape[1] == 8 and batch.focus_BTCHW.shape[1] == 12
            assert batch.boxes_BT4 is None
    loader = ClipLoader(trimmed, "train", TRIMMED, batch_size=26, train=True)
    (batch,) = list(loader)
    shared = 0
    for glance, focus in zip(batch.glance_BTCHW, batch.focus_BTCHW, strict=True):
        # Where both happen to hold the same frame they hold the same pixels; of frames that differ only in brightness
        # the textured half tells them apart.
        shared += sum(torch.equal(one, other) for one in glance for other in focus)
    assert shared > 26


def test_short_clips_are_padded_as_the_data_set_says(shards: Path, trimmed: Path) -> None:
    table = ClipTable(shards, "train")
    short = table.clip_ids.index("clip/0")  # three frames
    assert table.num_frames(short) == 3
    last = dict(
        zip(*[(b := load(shards, "train", train=False, batch_size=26)[0]).clip_ids, b.glance_BTCHW], strict=True)
    )
    assert torch.equal(last["clip/0"][3], last["clip/0"][2]) and not torch.equal(last["clip/0"][0], last["clip/0"][2])
    (batch,) = load(trimmed, "train", data=TRIMMED, train=False, batch_size=26)
    first = batch.glance_BTCHW[batch.clip_ids.index("clip/0")]
    assert all(torch.equal(frame, first[0]) for frame in first)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_file_and_its_packed_clip_give_the_same_pixels(shards: Path, root: Path, split: str) -> None:
    index = read_index(Store(shards))
    for batch in load(shards, split, train=False):
        for clip_id, glance in zip(batch.clip_ids, batch.glance_BTCHW, strict=True):
            with extract_frames(root / f"{clip_id.removeprefix('clip/')}.mp4", index.spec) as stream:
                jpegs = list(stream)
            seen, focus = evaluation_clip(jpegs, DATA, index.info.pad)
            assert torch.equal(seen, glance) and focus is seen


def test_classes_have_the_shares_of_their_clips(shards: Path) -> None:
    """A clip of two classes is half of each; a class without clips counts as one."""
    assert ClipLoader(shards, "train", DATA, batch_size=4, train=True).class_shares() == pytest.approx(
        [4.5 / 26, 9 / 26, 12.5 / 26]
    )
    assert ClipTable(shards, "val").class_shares() == pytest.approx([2 / 11, 3 / 11, 6 / 11])
    assert ClipTable(shards, "train", part=lambda name: name == "clip/1").class_shares() == pytest.approx([1 / 3] * 3)
    two = ClipTable(shards, "train", part=lambda name: name in ("clip/1", "clip/4"))
    assert two.class_shares() == pytest.approx([1 / 4, 2 / 4, 1 / 4])


def test_only_sampled_frames_are_read(shards: Path) -> None:
    table = ClipTable(shards, "train")
    number = table.clip_ids.index("clip/20")
    wanted = np.array([0, 7, 22])
    jpegs = table.read(number, wanted)
    row = read_index(Store(shards)).table.slice(20, 1).to_pylist()[0]
    assert [len(jpeg) for jpeg in jpegs] == [row["frame_sizes"][frame] for frame in wanted]
    assert all(bytes(jpeg[:2]) == b"\xff\xd8" and bytes(jpeg[-2:]) == b"\xff\xd9" for jpeg in jpegs)


def test_table_survives_pickling_without_its_rows(shards: Path) -> None:
    table = ClipTable(shards, "val")
    data = pickle.dumps(table)
    assert len(data) < 5000
    other = pickle.loads(data)
    assert other.clip_ids == table.clip_ids
    assert np.array_equal(other.read(3, np.array([5]))[0], table.read(3, np.array([5]))[0])


def _scribble(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(600, len(data) - 40, 600):
        data[at : at + 40] = bytes(range(40))
    path.write_bytes(data)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(
    ("damage", "message", "num_workers"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:5120]), "the shard ends before byte", 0),
        (Path.unlink, "the shard is gone", 1),
        (_scribble, "there is no frame at byte|a frame cannot be decoded", 0),
    ],
)
def test_a_shard_that_is_cut_gone_or_changed_is_told(
    shards: Path, tmp_path: Path, damage: Callable[[Path], None], message: str, num_workers: int
) -> None:
    for path in shards.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for path in tmp_path.glob("val-*.tar"):
        damage(path)
    options = {"num_workers": num_workers}
    with pytest.raises(
        ShardError, match=rf"^val-\d+\.tar, clip 'clip/\d+': ({message}).*: run `adafocus verify [^\n]*$"
    ):
        load(tmp_path, "val", **options)
    with pytest.raises(ShardError, match=r"^val-[^\n]*: run `adafocus verify [^\n]*$"):
        list(ClipStream(tmp_path, "val", DATA, batch_size=4, train=False, **options))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("shard", "/etc/passwd", "its shard is none of the data set's"),
        ("labels", [7], "it has no label, or one of no class"),
        ("first_offset", -1, "its frames lie before the beginning"),
    ],
)
def test_an_index_that_makes_no_sense_is_refused(
    shards: Path, tmp_path: Path, column: str, value: object, message: str
) -> None:
    table = pq.read_table(shards / INDEX)
    values = [value, *table[column].to_pylist()[1:]]
    at = table.column_names.index(column)
    changed = pa.array(values, table.schema.field(at).type)
    pq.write_table(table.set_column(at, table.schema.field(at), changed), tmp_path / INDEX)
    with pytest.raises(UserError, match=f"clip 'clip/0': {message}"):
        ClipTable(tmp_path, "train")


def test_bad_requests_are_told(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no usable clips in split 'test'; its splits are train, val"):
        load(shards, "test", train=False)
    with pytest.raises(UserError, match="there is no index"):
        load(tmp_path, "val")
    with pytest.raises(UserError, match=r"make them equal, or set data\.focus_frames=own"):
        load(shards, data=replace(TRIMMED, focus_frames="shared"))
    with pytest.raises(UserError, match=r"data.crop is 64, but has to be at most data.resize = 40"):
        load(shards, data=DataConfig(num_frames=4, num_focus_frames=4, resize=40, crop=64))
    with pytest.raises(UserError, match="27 workers cannot share the 26 clips"):
        load(shards, world_size=27)


def test_limit_is_spread_over_the_split(shards: Path) -> None:
    assert ids(load(shards, "val", limit=3)) == ["clip/26", "clip/29", "clip/33"]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 0), (1, 2), (2, 2), (5, 0), (3, 3)])
def test_streaming_evaluation_sees_each_clip_once(shards: Path, world_size: int, num_workers: int) -> None:
    """The split has 3 shards: with 4, 5 and 9 readers some share one."""
    expected = {i: x for b in load(shards, "val") for i, x in zip(b.clip_ids, b.glance_BTCHW, strict=True)}
    found = []
    for rank in range(world_size):
        stream = ClipStream(
            shards,
            "val",
            DATA,
            batch_size=4,
            train=False,
            rank=rank,
            world_size=world_size,
            num_workers=num_workers,
        )
        for batch in stream:
            found += batch.clip_ids
            for clip_id, glance in zip(batch.clip_ids, batch.glance_BTCHW, strict=True):
                assert torch.equal(glance, expected[clip_id])
    assert sorted(found) == sorted(expected)


def test_streaming_training_yields_the_loaders_clips_in_equal_shares(shards: Path) -> None:
    expected = {
        i: x for b in load(shards, epoch=2, batch_size=26) for i, x in zip(b.clip_ids, b.glance_BTCHW, strict=True)
    }
    for world_size in (1, 2):
        seen: list[str] = []
        for rank in range(world_size):
            stream = ClipStream(
                shards, "train", DATA, batch_size=4, train=True, rank=rank, world_size=world_size, num_workers=1
            )
            stream.set_epoch(2)
            batches = list(stream)
            assert len(batches) == len(stream) == 26 // (4 * world_size)
            for batch in batches:
                seen += batch.clip_ids
                for clip_id, glance in zip(batch.clip_ids, batch.glance_BTCHW, strict=True):
                    assert torch.equal(glance, expected[clip_id])
        assert len(set(seen)) == len(seen) == 24
    with pytest.raises(UserError, match="cannot share 11 clips; use fewer"):
        ClipStream(shards, "val", DATA, batch_size=4, train=False, world_size=12)
