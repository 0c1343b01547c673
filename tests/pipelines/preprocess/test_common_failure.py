"""An extraction that cannot succeed is noticed, one that has bad luck is left alone."""

from __future__ import annotations

from pathlib import Path

from pipelines.preprocess.common_failure import CommonFailure
from preprocessing.schema import INDEX_SCHEMA, Clip, DatasetInfo, ExtractionSpec
from preprocessing.shards.planning.job import Job
from preprocessing.shards.planning.plan import ShardPlan
from preprocessing.shards.record import ShardRecord, write_rows
from preprocessing.shards.storage import Store


def shard(job: Job, number: int, endings: list[tuple[str, str]]) -> ShardRecord:
    """The record of a shard whose clips ended so: status and reason."""
    clips = tuple(Clip("folder", "train", f"{number}-{at}", "a.mp4", (0,)) for at in range(len(endings)))
    empty = dict.fromkeys(INDEX_SCHEMA.names)
    rows = [empty | {"status": status, "error": error, "num_frames": 0} for status, error in endings]
    return write_rows(job, ShardPlan(number, "train", clips, 0), rows, 0, "")


def test_only_one_reason_for_all_counts(tmp_path: Path) -> None:
    job = Job(Store(tmp_path), tmp_path, DatasetInfo("folder", ("a",)), ExtractionSpec())
    unknown = [("probe_failed", f"option {number} unknown") for number in range(6)]
    first, second = shard(job, 0, unknown), shard(job, 1, unknown)
    alike = CommonFailure(job.store)
    assert alike.add(first) == ""  # too few to tell
    assert alike.add(second) == "all of the first 12 clips failed alike: option 0 unknown"
    others = {
        "ok": [("ok", "")],
        "missing": [("missing", "a.mp4 is not below the data root")],
        "another": [("probe_failed", "there is no video stream in it")],
    }
    for number, endings in enumerate(others.values(), 2):
        alike = CommonFailure(job.store)
        assert [alike.add(each) for each in (first, shard(job, number, endings), second)] == ["", "", ""]
