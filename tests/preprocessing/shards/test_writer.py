"""Shards are plain tars, the same bytes every time, and lose no clip."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import webdataset as wds
from PIL import Image

from helpers.packing import SPEC
from preprocessing.media.extraction import Limits
from preprocessing.schema import METADATA_KEY, Clip, DatasetInfo
from preprocessing.shards.archive import frame_offsets
from preprocessing.shards.build_index import build_index
from preprocessing.shards.planning.job import Job
from preprocessing.shards.planning.plan import plan_shards
from preprocessing.shards.record import finished_record
from preprocessing.shards.storage import Store
from preprocessing.shards.writer import write_shard


def clip(clip_id: str, split: str = "train", **more: object) -> Clip:
    return Clip("folder", split, clip_id, str(more.pop("source", clip_id)), (0,), **more)


def job_of(root: Path, out: Path, **options: object) -> Job:
    store = Store(out)
    store.create()
    return Job(store, root, DatasetInfo("folder", ("a",)), SPEC, **options)


def test_a_shard_is_a_web_dataset_and_its_rows_say_where_frames_lie(
    tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    ids = ["v_a.b.mp4", "%d 'x'.mp4", "-dash.mp4"]
    for number, name in enumerate(ids):
        make_video(tmp_path / "root" / name, count=5 + number, seed=number)
    clips = [clip(name, boxes=tuple((0.0, 0.0, 0.5, 0.5) for _ in range(5))) for name in ids]
    (plan,) = plan_shards(clips, [1, 1, 1], 8, first_number=42)
    job = job_of(tmp_path / "root", tmp_path / "out")
    record = write_shard(job, plan)
    assert (record.name, record.num_clips, record.statuses, record.num_frames) == ("train-000042", 3, {"ok": 3}, 18)
    assert finished_record(job, plan) == record
    assert finished_record(replace(job, spec=replace(SPEC, quality=9)), plan) is None
    rows = pq.read_table(tmp_path / "out" / "train-000042.parquet").to_pylist()
    assert [(row["clip_id"], row["key"], row["num_frames"]) for row in rows] == [
        (name, f"000042_{number:05d}", 5 + number) for number, name in enumerate(ids)
    ]
    boxes = build_index(job, clips, [record]).table["boxes"]
    assert boxes.is_valid().to_pylist() == [True, False, False]  # only where there is one per frame
    data = (tmp_path / "out" / "train-000042.tar").read_bytes()
    samples = list(wds.WebDataset(str(tmp_path / "out" / "train-000042.tar"), shardshuffle=False))
    for row, sample in zip(rows, samples, strict=True):
        assert sample["__key__"] == row["key"]
        assert json.loads(sample["json"])["clip_id"] == row["clip_id"]
        for number, offset in enumerate(frame_offsets(row["first_offset"], row["frame_sizes"]), 1):
            jpeg = data[offset : offset + row["frame_sizes"][number - 1]]
            assert jpeg == sample[f"{number:06d}.jpg"]
            assert Image.open(io.BytesIO(jpeg)).size == (64, 48)
    told = json.loads(pq.read_schema(tmp_path / "out" / "train-000042.parquet").metadata[METADATA_KEY])
    assert told["argv"][0] == "ffmpeg" and "-format_whitelist" in told["argv"]
    assert told["versions"]["ffmpeg"]


def test_every_status_has_a_row_and_costs_only_itself(
    tmp_path: Path, make_video: Callable[..., Path], run_ffmpeg: Callable[..., None]
) -> None:
    root = tmp_path / "root"
    good = make_video(root / "good.mp4", count=60, height=96, width=128)
    make_video(root / "short.mp4", count=2)
    (root / "empty.mp4").write_bytes(b"")
    (root / "cut.mp4").write_bytes(good.read_bytes()[: good.stat().st_size * 6 // 10])
    make_video(root / "last.mp4", count=4)
    names = ["good", "short", "empty", "cut", "nowhere", "late", "last"]
    clips = [clip(f"{name}.mp4") for name in names]
    clips[5] = clip("late.mp4", source="good.mp4", start_s=99.0, end_s=100.0)
    clips.append(clip("out", source="../secret.mp4"))
    (plan,) = plan_shards(clips, [1] * len(clips), 64)
    statuses = {}
    for drop in (False, True):
        out = tmp_path / f"out{drop}"
        write_shard(job_of(root, out, drop_damaged=drop), plan)
        rows = pq.read_table(out / plan.rows).to_pylist()
        statuses[drop] = {row["clip_id"].removesuffix(".mp4"): row["status"] for row in rows}
        with tarfile.open(out / plan.tar) as archive:
            members = archive.getnames()
        kept = {row["key"] for row in rows if row["status"] in ("ok", "damaged")}
        assert {name.split(".")[0] for name in members} == kept
        assert all((row["status"] == "ok") == (row["error"] == "") for row in rows)
        assert all(row["num_frames"] == len(row["frame_sizes"]) for row in rows)
    assert statuses[False] == {
        "good": "ok",
        "short": "too_short",
        "empty": "probe_failed",
        "cut": "damaged",
        "nowhere": "missing",
        "late": "decode_failed",
        "last": "ok",
        "out": "missing",
    }
    assert statuses[True] == statuses[False] | {"cut": "decode_failed"}


def test_timeout_is_a_row(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    make_video(tmp_path / "a.mp4")
    (plan,) = plan_shards([clip("a.mp4")], [1], 4)
    record = write_shard(job_of(tmp_path, tmp_path, limits=Limits(timeout_s=0.0)), plan)
    assert record.statuses == {"timeout": 1}


def test_same_input_same_bytes(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    clips = [clip(make_video(tmp_path / f"{number}.mp4", seed=number).name) for number in range(3)]
    (plan,) = plan_shards(clips, [1, 2, 3], 4)
    outs = [tmp_path / name for name in ("one", "two")]
    records = [write_shard(job_of(tmp_path, out), plan) for out in outs]
    assert records[0] == records[1]
    tars = [(out / plan.tar).read_bytes() for out in outs]
    assert tars[0] == tars[1]


def test_folders_of_frames_are_packed_byte_for_byte(tmp_path: Path) -> None:
    folder = tmp_path / "root" / "100218"
    folder.mkdir(parents=True)
    jpegs = []
    for number in range(1, 6):
        buffer = io.BytesIO()
        Image.new("RGB", (20, 10), (number * 40, 0, 0)).save(buffer, "JPEG")
        jpegs.append(buffer.getvalue())
        (folder / f"{number:05d}.jpg").write_bytes(jpegs[-1])
    (folder / "readme.txt").write_text("no frame")
    frames = clip("100218", source_kind="frames")
    (plan,) = plan_shards([frames], [1], 4)
    job = job_of(tmp_path / "root", tmp_path)
    assert write_shard(job, plan).statuses == {"ok": 1}
    with tarfile.open(tmp_path / plan.tar) as archive:
        contents = [archive.extractfile(name).read() for name in archive.getnames() if name.endswith("jpg")]
    assert contents == jpegs
    (folder / "00002.jpg").write_bytes(jpegs[1][:-10])
    (folder / "00003.jpg").write_bytes(b"GIF89a")
    assert write_shard(job, plan).statuses == {"damaged": 1}
    (row,) = pq.read_table(tmp_path / plan.rows).to_pylist()
    assert row["num_frames"] == 3
    assert "00002.jpg: it is cut off" in row["error"] and "00003.jpg" in row["error"]
