"""Starting again: what is finished is kept, what is broken is redone, what has changed is refused in words."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from helpers.packing import pack
from preprocessing.clips import measure_sources, select_clips
from preprocessing.datasets import find_dataset
from preprocessing.files import atomic_write
from preprocessing.schema import METADATA_KEY, Clip, ExtractionSpec, UserError
from preprocessing.shards.build_index import build_index
from preprocessing.shards.index import INDEX, Index, read_index, read_metadata
from preprocessing.shards.job import Job
from preprocessing.shards.mapped_index import MAPPED, map_index
from preprocessing.shards.record import finished_record
from preprocessing.shards.statistics import clip_rows, statistics, statistics_text, summarise
from preprocessing.shards.storage import Store
from preprocessing.shards.verify import Problem, verify
from preprocessing.shards.worklist import PLAN, Worklist, open_worklist
from preprocessing.shards.writer import write_shard

SPEC = ExtractionSpec(height=48)


Start = tuple[Job, list[Clip], Worklist]


def start(root: Path, out: Path, spec: ExtractionSpec = SPEC, retry_failed: bool = False, **options: object) -> Start:
    info, clips = find_dataset("folder").read_clips(root)
    job = Job(Store(out), root, info, spec, clips_per_shard=4, **options)
    job.store.create()
    return job, clips, open_worklist(job, clips, measure_sources(root, clips), retry_failed=retry_failed)


def finish(job: Job, clips: list[Clip], work: Worklist) -> Index:
    """The plain loop: what `pipelines.preprocess.extract` does on Ray."""
    records = {record.name: record for record in work.finished}
    records |= {plan.name: finished_record(job, plan) or write_shard(job, plan) for plan in work.open_plans}
    return build_index(job, clips, [records[plan.name] for plan in work.plans])


@pytest.fixture
def root(folder_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder_root, tmp_path / "root"))


@pytest.fixture(scope="module")
def finished(folder_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    finish(*start(folder_root, out))
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


def test_every_clip_has_a_row_in_the_order_of_the_annotations(finished: Path) -> None:
    index = read_index(Store(finished))
    assert index.table["clip_id"].to_pylist() == [f"videos/clip {number}.mp4" for number in range(12)]
    status = dict(enumerate(index.table["status"].to_pylist()))
    bad = {3: "probe_failed", 5: "probe_failed", 9: "missing"}
    assert status == {number: bad.get(number, "ok") for number in range(12)}
    summary = summarise(index)
    assert (summary["clips"], summary["usable"], summary["failed"], summary["shards"]) == (12, 9, 3, 3)
    assert summary["splits"] == {"train": 8, "val": 4}
    assert summary["num_frames"] == sum(10 + number for number in range(12) if number not in bad)


def test_a_second_start_has_nothing_to_do(folder_root: Path, out: Path) -> None:
    *_, work = start(folder_root, out)
    assert work.open_plans == []
    assert len(work.finished) == 3


def test_shards_without_an_index_are_recognised_by_hash(folder_root: Path, out: Path) -> None:
    before = read_index(Store(out)).digest
    (out / INDEX).unlink()
    tars = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    first, second, third = sorted(tars)
    data = bytearray((out / second).read_bytes())
    data[3000] ^= 1  # same size, other bytes
    (out / second).write_bytes(data)
    with open(out / third, "rb+") as file:
        file.truncate(10240)
    job, clips, work = start(folder_root, out)
    reused = {plan.tar for plan in work.open_plans if finished_record(job, plan)}
    assert reused == {first}
    assert finish(job, clips, work).digest == before
    assert (out / first).stat().st_mtime_ns == tars[first]


def test_a_truncated_tar_of_a_complete_data_set_is_redone(folder_root: Path, out: Path) -> None:
    before = read_index(Store(out)).digest
    with open(out / "train-000001.tar", "rb+") as file:
        file.truncate(20480)
    job, clips, work = start(folder_root, out)
    assert [plan.name for plan in work.open_plans] == ["train-000001"]
    assert finish(job, clips, work).digest == before
    assert not [item for item in verify(job.store) if isinstance(item, Problem)]


def test_other_settings_and_other_inputs_are_refused(root: Path, out: Path) -> None:
    with pytest.raises(UserError, match="was started with height = 48, now it is 64; choose another --out"):
        start(root, out, ExtractionSpec(height=64))
    with pytest.raises(UserError, match="was started with drop_damaged = False"):
        start(root, out, drop_damaged=True)
    with open(root / "videos" / "clip 0.mp4", "ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match=r"1 source files have changed .*first: videos/clip 0.mp4"):
        start(root, out)
    (root / "videos" / "clip 0.mp4").unlink()
    start(root, out)  # sources may go once they are packed
    manifest = root / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("clip 1.mp4,b", "clip 1.mp4,a"))
    with pytest.raises(UserError, match="was started with clips ="):
        start(root, out)


def test_retry_failed_extracts_only_what_failed(root: Path, out: Path, make_video: Callable[..., Path]) -> None:
    before = {path.name: path.read_bytes() for path in out.glob("*.tar")}
    digest = read_index(Store(out)).digest
    make_video(root / "videos" / "clip 3.mp4", count=13)
    make_video(root / "videos" / "clip 9.mp4", count=19)
    job, clips, work = start(root, out, retry_failed=True)
    assert sorted(clip.source for plan in work.open_plans for clip in plan.clips) == [
        "videos/clip 3.mp4",
        "videos/clip 5.mp4",
        "videos/clip 9.mp4",
    ]
    assert {plan.number for plan in work.open_plans} == {3, 4}
    index = finish(job, clips, work)
    assert summarise(index)["statuses"] == {"ok": 11, "probe_failed": 1}
    assert index.digest != digest
    assert index.table["clip_id"].to_pylist() == [f"videos/clip {number}.mp4" for number in range(12)]
    assert {path.name: path.read_bytes() for path in out.glob("*.tar") if path.name in before} == before
    assert not [item for item in verify(job.store) if isinstance(item, Problem)]
    *_, again = start(root, out)
    assert again.open_plans == []
    (root / "videos" / "clip 5.mp4").unlink()
    *_, again = start(root, out, retry_failed=True)
    assert again.open_plans == []  # what is still missing is not tried


def test_retry_failed_needs_a_finished_data_set(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not finished; run without --retry-failed first"):
        start(root, tmp_path / "new", retry_failed=True)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda out: (out / "val-000002.tar").unlink(), "val-000002.tar.*cannot be read"),
        (lambda out: (out / "val-000002.parquet").unlink(), "val-000002.parquet is missing"),
        (lambda out: (out / "val-000002.tar").write_bytes(b"x" * 10), "10 bytes, .* recorded"),
        (lambda out: (out / "val-000009.tar").write_bytes(b""), "val-000009.tar.*is not in the index"),
        (lambda out: _flip(out / "val-000002.tar", 600), "its bytes have changed"),
        (lambda out: _flip(out / "val-000002.tar", 513), "frame 1 is not where the index says"),
    ],
)
def test_verify_finds(out: Path, damage: Callable[[Path], None], problem: str) -> None:
    store = Store(out)
    assert not [item for item in verify(store) if isinstance(item, Problem)]
    damage(out)
    found = [f"{item.shard} {item.clip_id} {item.what}" for item in verify(store) if isinstance(item, Problem)]
    assert any(re.search(problem, line) for line in found), found


def _flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def test_no_index_and_no_index_of_ours(tmp_path: Path, out: Path) -> None:
    with pytest.raises(UserError, match=r"there is no index.parquet, so no finished data set"):
        read_index(Store(tmp_path / "nowhere"))
    (out / INDEX).write_bytes(b"PAR1 garbage")
    with pytest.raises(UserError, match="cannot be read"):
        read_index(Store(out))


def test_the_plan_is_written_as_ever(out: Path) -> None:
    """Folders that were started before are recognised: not a byte of plan.json changes."""
    plan = json.loads((out / PLAN).read_text())
    identity, sizes = plan["identity"], plan["source_bytes"]
    assert re.fullmatch(r"[0-9a-f]{16}", identity["clips"]) and len(sizes) == 12 and sizes[9] == -1
    assert (out / PLAN).read_text() == (
        f'{{"identity": {{"dataset": "folder", "annotations": "manifest.csv", "clips": "{identity["clips"]}", '
        '"num_clips": 12, "clips_per_shard": 4, "drop_damaged": false, "height": 48, "fps": null, "quality": 2, '
        f'"max_frames": null, "profile": "clean"}}, "source_bytes": {sizes}, "retries": []}}'
    )


def test_a_rewritten_index_is_noticed(root: Path, out: Path, make_video: Callable[..., Path]) -> None:
    """The metadata is read once per process, and again when the file has changed."""
    before = read_metadata(str(out))
    assert read_metadata(out) is before and before.digest == read_index(Store(out)).digest
    make_video(root / "videos" / "clip 3.mp4", count=13)
    after = finish(*start(root, out, retry_failed=True))
    assert read_metadata(out).digest == after.digest != before.digest
    stat = (out / INDEX).stat()
    metadata = after.table.schema.metadata[METADATA_KEY].replace(after.digest.encode(), b"0123456789abcdef")
    with atomic_write(out / INDEX) as partial:  # as large and as old as before, but another file
        table = after.table.replace_schema_metadata({METADATA_KEY: metadata})
        pq.write_table(table, partial, compression="zstd", row_group_size=16_384)
        os.utime(partial, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (out / INDEX).stat().st_size == stat.st_size
    assert read_metadata(out).digest == "0123456789abcdef"
    (out / INDEX).unlink()
    with pytest.raises(UserError, match="there is no index"):
        read_metadata(out)


def test_mapped_index_follows_the_index(root: Path, out: Path, make_video: Callable[..., Path]) -> None:
    store = Store(out)
    index, path = map_index(store)
    assert path == out / MAPPED
    assert index.table.equals(read_index(store).table)
    written = path.stat().st_mtime_ns
    assert map_index(store)[1].stat().st_mtime_ns == written
    stale = path.read_bytes()
    make_video(root / "videos" / "clip 3.mp4", count=13)
    finish(*start(root, out, retry_failed=True))
    path.write_bytes(stale)
    assert map_index(store)[0].digest == read_index(store).digest != index.digest
    path.write_bytes(b"broken")
    assert map_index(store)[0].digest == read_index(store).digest


def test_select_clips(folder_root: Path) -> None:
    _, clips = find_dataset("folder").read_clips(folder_root)
    assert len(select_clips(clips, ["val"], None)) == 4
    assert [clip.split for clip in select_clips(clips, None, 2)] == ["train", "train", "val", "val"]
    with pytest.raises(UserError, match="the data set has the splits train, val, chosen were"):
        select_clips(clips, ["test"], None)
    with pytest.raises(UserError, match="unknown split 'dev'"):
        select_clips(clips, ["dev"], None)


def test_statistics_and_failures_in_words(finished: Path) -> None:
    index = read_index(Store(finished))
    numbers = statistics(index)
    assert numbers["quantiles"]["num_frames"] == {"min": 10.0, "median": 16.0, "max": 21.0}
    assert numbers["classes"] == {"a": {"train": 4, "val": 2}, "b": {"train": 4, "val": 2}}
    assert "12 clips, 2 classes" in statistics_text(numbers, "here")
    rows = clip_rows(index, failed=True, damaged=False)
    assert [row["status"] for row in rows] == ["probe_failed", "probe_failed", "missing"]
    assert "is not below the data root" in rows[2]["error"]


def test_listed_frames_are_compared(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    counts = {"a": (10, 10), "b": (20, 10), "c": (200, 201)}  # in the file, in the list
    for name, (count, _) in counts.items():
        make_video(tmp_path / "root" / f"v_{name}.mp4", count=count)
    lines = [f"{name},{listed},0" for name, (_, listed) in counts.items()]
    (tmp_path / "root" / "actnet_train_split.txt").write_text("\n".join(lines))
    info, clips = find_dataset("activitynet").read_clips(tmp_path / "root")
    job = Job(Store(tmp_path / "out"), tmp_path / "root", info, replace(SPEC, height=16), clips_per_shard=8)
    summary = summarise(pack(job, clips))
    assert (summary["listed"], summary["listed_match"], summary["listed_within_1pc"]) == (3, 1, 2)
