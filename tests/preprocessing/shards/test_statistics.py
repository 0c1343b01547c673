"""Statistics of a data set, and its failures in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from helpers.packing import SPEC, pack
from preprocessing.datasets import find_dataset
from preprocessing.shards.index import read_index
from preprocessing.shards.planning.job import Job
from preprocessing.shards.statistics import clip_rows, statistics, statistics_text, summarise
from preprocessing.shards.storage import Store


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
