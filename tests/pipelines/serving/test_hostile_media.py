"""Files that are meant to break us: each gets its row, from preprocessing and from prediction, in time and memory."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from helpers.hostile import hostile_files, make_valid
from pipelines.serving.predict import AdaFocusPredictor, predict_all
from preprocessing.ffmpeg.process import MAX_MEMORY
from preprocessing.media.extraction import Limits
from preprocessing.schema import STATUSES, USABLE, Clip, DatasetInfo, ExtractionSpec
from preprocessing.shards.planning.job import Job
from preprocessing.shards.planning.plan import plan_shards
from preprocessing.shards.storage import Store
from preprocessing.shards.writer import write_shard

LIMITS = Limits(timeout_s=10, num_frames=2000, num_bytes=64 << 20)
OUR_MEMORY = 400e6
"""Bytes that this process may take more, whatever the files are like."""


@pytest.mark.parametrize("count", [48, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])])
def test_every_file_gets_a_row_in_time(
    count: int, tmp_path: Path, run_ffmpeg: Callable[..., None], checkpoints: dict[str, Path]
) -> None:
    (tmp_path / "valid").mkdir()
    root = tmp_path / "root"
    root.mkdir()
    for name, data in hostile_files(make_valid(tmp_path / "valid", run_ffmpeg), count, seed=count):
        (root / name).write_bytes(data)
    names = sorted(os.listdir(root))
    before = psutil.Process().memory_info().rss

    clips = [Clip("folder", "train", name, name, (0,)) for name in names]
    store = Store(tmp_path / "out")
    store.create()
    job = Job(store, root, DatasetInfo("folder", ("a",)), ExtractionSpec(height=48), limits=LIMITS)
    plans = plan_shards(clips, [1] * count, 16)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda plan: write_shard(job, plan), plans))
    rows = [row for plan in plans for row in pq.read_table(tmp_path / "out" / plan.rows).to_pylist()]
    assert sorted(row["clip_id"] for row in rows) == names
    for row in rows:
        assert row["status"] in STATUSES and (row["status"] == "ok") == (row["error"] == ""), row
        assert row["seconds"] < 2 * LIMITS.timeout_s, row
        assert (row["num_frames"] > 0) == (row["status"] in USABLE) and row["num_frames"] <= LIMITS.num_frames, row
    statuses = {row["status"] for row in rows}
    assert {"ok", "damaged", "probe_failed"} <= statuses, statuses  # the mischief is neither too great nor too small

    model = AdaFocusPredictor(checkpoints["frame"], device="cpu", limits=LIMITS)
    started = time.monotonic()
    outcomes = list(predict_all(model, [root / name for name in names], 2))
    assert [outcome.path.name for outcome in outcomes] == names
    assert all(bool(outcome.prediction) != bool(outcome.error) for outcome in outcomes)
    assert time.monotonic() - started < count * 3 * LIMITS.timeout_s

    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 <= MAX_MEMORY
    assert psutil.Process().memory_info().rss - before < OUR_MEMORY
    assert not [child for child in psutil.Process().children() if "ffmpeg" in child.name()]
