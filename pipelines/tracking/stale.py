"""Runs that nobody closed: a killed process leaves its runs open, and MLflow calls them running for ever."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from pipelines.tracking.client import Tracker
from pipelines.tracking.records import SweepRecord, TrialRecord

STALE_AFTER_MIN = 10.0
"""Minutes without a sign of life after which an open run is called stale."""


def mark_stale(
    tracker: Tracker,
    trials: Sequence[TrialRecord],
    sweeps: Sequence[SweepRecord],
    after_min: float = STALE_AFTER_MIN,
) -> tuple[list[TrialRecord], list[SweepRecord]]:
    """The same records, but open ones of which nothing was heard for so many minutes are called stale. A sweep is heard
    of by its trials too."""
    marked_trials = []
    for trial in trials:
        minutes = _silent_min(tracker, trial.run_id) if trial.outcome == "running" else 0.0
        if trial.outcome == "running" and minutes >= after_min:
            trial = replace(trial, outcome="stale", reason=f"no sign of life for {minutes:.0f} min: was it killed?")
        marked_trials.append(trial)
    alive = {trial.parent_id for trial in marked_trials if trial.outcome == "running"}
    marked_sweeps = []
    for sweep in sweeps:
        is_open = sweep.status == "RUNNING" and sweep.run_id not in alive
        if is_open and _silent_min(tracker, sweep.run_id) >= after_min:
            sweep = replace(sweep, status="STALE")
        marked_sweeps.append(sweep)
    return marked_trials, marked_sweeps


def _silent_min(tracker: Tracker, run_id: str) -> float:
    return (time.time() * 1000 - tracker.last_sign_ms(run_id)) / 60_000
