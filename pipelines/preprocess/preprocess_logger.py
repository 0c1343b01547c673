"""What is logged of preprocessing: the summary and the data set, in one run per data set."""

from __future__ import annotations

from typing import Any

from pipelines.tracking.client import Tracker


def log_summary(tracker: Tracker, summary: dict[str, Any]) -> None:
    """Log the summary of a finished extraction; that of the same data set again goes into the same run."""
    run = tracker.run(summary["dataset"], "preprocess", "preprocess", digest=summary["digest"])
    run.log_summary("preprocess", _flat(summary))
    run.log_dataset(summary["dataset"], summary["digest"], summary["out"], "preprocessing")
    counts = ", ".join(f"{number} {status}" for status, number in summary["statuses"].items() if number)
    run.set_description(f"Packed {summary['dataset']} as `{summary['out']}`. Clips: {counts}.")
    run.finish()


def _flat(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary as names and plain values."""
    flat = {key: value for key, value in summary.items() if not isinstance(value, dict)}
    flat |= {f"status/{name}": number for name, number in summary["statuses"].items()}
    return flat | {f"spec/{name}": value for name, value in summary["spec"].items()}
