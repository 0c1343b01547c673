"""Finds the checkpoint that a user names: by a run's name or id, by a sweep, or by its folder."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.paths import Places
from pipelines.tracking.records import TrialRecord
from preprocessing.schema import UserError

if TYPE_CHECKING:
    from pipelines.tracking.client import Tracker

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SelectedCheckpoint:
    """A checkpoint, and the trial that it is the result of."""

    folder: Path
    run_id: str = ""
    """In MLflow; empty for a folder that was given as such."""
    name: str = ""


def find_checkpoint(places: Places, *, run: str | None, sweep: str | None, folder: Path | None) -> SelectedCheckpoint:
    """The checkpoint of a run (by its id, its name, or sweep and name), of the best trial of a sweep, or in a folder.

    Raises UserError if there is none that has finished, and for a name that several runs have.
    """
    return find_checkpoints(places, run=run, sweep=sweep, folder=folder)[0]


def find_checkpoints(
    places: Places, *, run: str | None, sweep: str | None, folder: Path | None, best: int = 1
) -> list[SelectedCheckpoint]:
    """The same as a list, with the `best` trials of a sweep by the data set's metric, or as many as have finished."""
    if folder:
        return [SelectedCheckpoint(folder.absolute(), name=folder.name)]
    from pipelines.tracking.client import Tracker  # not above: a folder needs no MLflow, which is slow to import

    tracker = Tracker.at(places)
    if run is not None:
        return [_selected(_trial_named(tracker, run, places.store), places)]
    assert sweep is not None
    trials = _finished(tracker.trials(sweep=sweep), f"trial of sweep {sweep!r}", places.store)
    if len({trial.dataset for trial in trials}) > 1:
        raise UserError(f"there are sweeps {sweep!r} of several data sets: give --run and one of {_listed(trials)}")
    if len(trials) < best:
        log.info("only %d trials of sweep %s have finished", len(trials), sweep)
    return [_selected(trial, places) for trial in sorted(trials, key=_score, reverse=True)[:best]]


def _trial_named(tracker: Tracker, wanted: str, store: str) -> TrialRecord:
    """The one trial with this id or name."""
    trials = tracker.trials()
    same_id = [trial for trial in trials if trial.run_id == wanted]
    trials = same_id or [trial for trial in trials if wanted in (trial.name, trial.full_name)]
    finished = _finished(trials, f"run {wanted!r}", store)
    if len(finished) > 1:
        raise UserError(f"{len(finished)} runs are named {wanted!r}: give --run and one of {_listed(finished)}")
    return finished[0]


def _finished(trials: Sequence[TrialRecord], subject: str, store: str) -> list[TrialRecord]:
    """The trials that have a checkpoint. Raises UserError if none has, with how they ended."""
    finished = [trial for trial in trials if trial.checkpoint]
    if finished:
        return finished
    if not trials:
        raise UserError(f"there is no {subject} in {store}; `adafocus train` or `adafocus tune` makes one")
    if len(trials) == 1:
        raise UserError(f"{subject} has no result to use: it {_ending(trials[0])}")
    counts = Counter(trial.outcome for trial in trials)
    raise UserError(
        f"no {subject} has finished: {', '.join(f'{count} {outcome}' for outcome, count in counts.items())}"
    )


def _ending(trial: TrialRecord) -> str:
    """How a trial without a result ended, in words."""
    words: dict[str, str] = {
        "running": "is still running, or was killed",
        "pruned": "was pruned",
        "stopped": "was stopped",
    }
    reached = f" in stage {trial.reached}" if trial.reached else ""
    reason = f": {trial.short_reason}" if trial.reason else ""
    return words.get(trial.outcome, str(trial.outcome)) + reached + reason


def _listed(trials: Sequence[TrialRecord]) -> str:
    """Ids of trials, with sweep and data set."""
    return ", ".join(
        f"{trial.run_id} ({f'sweep {trial.sweep}' if trial.sweep else 'no sweep'}, {trial.dataset})" for trial in trials
    )


def _score(trial: TrialRecord) -> float:
    return -1.0 if trial.score is None else trial.score


def _selected(trial: TrialRecord, places: Places) -> SelectedCheckpoint:
    return SelectedCheckpoint(places.runs / trial.checkpoint, trial.run_id, trial.full_name)
