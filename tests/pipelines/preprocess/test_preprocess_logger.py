"""What preprocessing leaves in MLflow."""

from __future__ import annotations

from pathlib import Path

from pipelines.preprocess.preprocess_logger import log_summary
from pipelines.tracking.client import Tracker


def test_numbers_become_metrics_and_words_parameters(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    summary = {
        "dataset": "folder",
        "digest": "d1",
        "clips": 12,
        "statuses": {"ok": 9, "missing": 3},
        "spec": {"height": 48, "profile": "clean"},
        "splits": {"train": 8, "val": 4},
        "out": str(tmp_path / "shards"),
    }
    for _ in range(2):
        log_summary(tracker, summary)
    (run,) = tracker.find("preprocess")
    assert run.info.status == "FINISHED"
    numbers = {"clips": 12.0, "status/ok": 9.0, "status/missing": 3.0, "spec/height": 48.0}
    assert run.data.metrics == {f"preprocess/{key}": value for key, value in numbers.items()}
    assert {key: run.data.params[f"preprocess/{key}"] for key in ("dataset", "digest", "spec/profile")} == {
        "dataset": "folder",
        "digest": "d1",
        "spec/profile": "clean",
    }
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("folder", "d1")
    assert "Clips: 9 ok, 3 missing." in run.data.tags["mlflow.note.content"]
