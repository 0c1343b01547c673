"""How long each epoch of a sweep's trials took, as MLflow holds it.

A trial that found a stage finished logs its epochs again, with the time at which they were trained: the same step of a
stage at the same time is the same epoch.
"""

from __future__ import annotations

from collections.abc import Iterable

from adafocus.methods import stage_names
from pipelines.tracking.client import Tracker
from pipelines.tracking.records import RunRecord

Epoch = tuple[str, int, int]
"""Stage, step, time in milliseconds."""


class EpochTimes:
    """Seconds of the epochs of some runs."""

    def __init__(self, tracker: Tracker, runs: Iterable[RunRecord]) -> None:
        self._seconds: dict[str, dict[Epoch, float]] = {}
        for run in runs:
            self._seconds[run.run_id] = {
                (stage, entry.step, entry.timestamp): entry.value
                for stage in stage_names()
                if f"{stage}/seconds" in run.metrics
                for entry in tracker.open(run.run_id).entries(f"{stage}/seconds")
            }

    def of(self, run_id: str) -> dict[Epoch, float]:
        """Seconds by epoch of one run, those of stages that it shares too."""
        return self._seconds[run_id]

    def stage_hours(self) -> dict[str, float]:
        """Hours by stage, with each epoch counted once."""
        once = {epoch: value for seconds in self._seconds.values() for epoch, value in seconds.items()}
        hours = dict.fromkeys((stage for stage in stage_names() if any(epoch[0] == stage for epoch in once)), 0.0)
        for (stage, _, _), value in once.items():
            hours[stage] += value / 3600
        return hours
