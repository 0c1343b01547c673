"""Starting again: what is finished is kept, what is broken is redone, what has changed is refused in words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.packing import SPEC, finish, start
from preprocessing.datasets import find_dataset
from preprocessing.schema import ExtractionSpec, UserError
from preprocessing.shards.index import INDEX, read_index
from preprocessing.shards.planning.job import Job
from preprocessing.shards.planning.worklist import PLAN, Worklist, open_worklist
from preprocessing.shards.record import finished_record
from preprocessing.shards.statistics import summarise
from preprocessing.shards.storage import Store
from preprocessing.shards.verify import Problem, verify
from preprocessing.sources import measure_sources


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


def begin(root: Path, out: Path, clips_per_shard: int | None, shard_bytes: int | None) -> Worklist:
    info, clips = find_dataset("folder").read_clips(root)
    job = Job(Store(out), root, info, SPEC, clips_per_shard, shard_bytes)
    job.store.create()
    return open_worklist(job, clips, measure_sources(root, clips))


def test_a_folder_keeps_the_limits_that_it_was_started_with(folder_root: Path, out: Path, tmp_path: Path) -> None:
    assert begin(folder_root, out, None, None).open_plans == []  # started by number of clips, before there were bytes
    with pytest.raises(UserError, match="was started with shard_bytes = None, now it is 1000; choose another --out"):
        begin(folder_root, out, 4, 1000)
    with pytest.raises(UserError, match="was started with clips_per_shard = 4, now it is 5"):
        begin(folder_root, out, 5, None)
    new = tmp_path / "new"
    plans = begin(folder_root, new, None, 20_000).plans
    assert len(plans) > 4 and begin(folder_root, new, None, None).plans == plans
    assert json.loads((new / PLAN).read_text())["packed_size"]["per_source_byte"] > 1
    with pytest.raises(UserError, match="was started with shard_bytes = 20000, now it is 30000"):
        begin(folder_root, new, None, 30_000)
    (new / PLAN).write_text('{"identity": 3}')
    with pytest.raises(UserError, match=r"plan.json cannot be read .*choose another --out"):
        begin(folder_root, new, None, None)


def test_shards_are_about_as_large_as_is_asked_for(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    """From an estimate: the beginnings of a few clips say what the others become."""
    rows = ["path,label,split"]
    for number in range(24):
        make_video(tmp_path / "root" / f"{number}.mp4", count=10 + 5 * number, seed=number)
        rows.append(f"{number}.mp4,{'ab'[number % 2]},{'train' if number else 'val'}")
    (tmp_path / "root" / "manifest.csv").write_text("\n".join(rows))
    info, clips = find_dataset("folder").read_clips(tmp_path / "root")
    job = Job(Store(tmp_path / "out"), tmp_path / "root", info, SPEC, shard_bytes=600_000)
    job.store.create()
    index = finish(job, clips, open_worklist(job, clips, measure_sources(job.root, clips)))
    largest = max(record.num_bytes for record in index.shards)
    train = [record.num_bytes for record in index.shards if record.name.startswith("train")]
    assert len(train) >= 3 and largest < 1.4 * 600_000 and min(train) > 0.5 * largest
