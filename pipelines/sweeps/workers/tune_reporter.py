"""Reports a trial's epochs to Ray Tune, whose scheduler and searcher decide by them.

Every report has `clock`, which counts epochs through all stages, and `score`. `judged_epoch` and `judged_score`, by
which trials are compared, are there only in the stage in which they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from adafocus.training.reports import EpochReport
from pipelines.tracking.score import score_name

ReportFunction = Callable[[dict[str, Any]], None]
"""Ray's function that takes a report."""


class TuneReporter:
    """Reports every epoch: its metrics, the clock, the newest score, and what trials are compared by."""

    def __init__(self, report: ReportFunction, judged: str, epochs_before: int, metric: str) -> None:
        """`judged`: the stage in which trials are compared; `epochs_before`: of all stages before it."""
        self._report, self._judged, self._epochs_before, self._metric = report, judged, epochs_before, metric
        self._score: float | None = None

    def __call__(self, rows: Sequence[EpochReport]) -> None:
        for row in rows:
            values: dict[str, Any] = {**row.metrics, "clock": row.clock}
            score = row.metrics.get(score_name(row.stage, self._metric))  # not every epoch is evaluated
            if score is not None:
                self._score = score
                if row.stage == self._judged:
                    values |= {"judged_epoch": row.clock - self._epochs_before, "judged_score": score}
            self._report({**values, **score_values(self._score)})


def score_values(score: float | None) -> dict[str, float | bool]:
    """A score as values of a report: Tune's searchers take nothing but numbers."""
    return {"score": 0.0 if score is None else score, "evaluated": score is not None}
