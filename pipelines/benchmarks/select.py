"""Which finished trial is meant: a run's name or id, a sweep or a folder in; checkpoints, the best first, out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.paths import Places
from pipelines.tracking.client import Tracker
from pipelines.tracking.records import TrialRecord
from preprocessing.schema import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A checkpoint, and the trial that made it."""

    folder: Path
    run_id: str = ""
    """In MLflow; empty for a folder that was given as such."""
    name: str = ""


def find_checkpoint(places: Places, *, run: str | None, sweep: str | None, folder: Path | None) -> Chosen:
    """Of a run (by its id, its name, or sweep and name), of the best trial of a sweep, or in a folder.

    Raises UserError if there is none that has finished, and for a name that several have.
    """
    return find_checkpoints(places, run=run, sweep=sweep, folder=folder)[0]


def find_checkpoints(
    places: Places, *, run: str | None, sweep: str | None, folder: Path | None, best: int = 1
) -> list[Chosen]:
    """As `find_checkpoint`; of a sweep the `best` trials by the data set's metric, or as many as have finished."""
    if folder:
        return [Chosen(folder.absolute(), name=folder.name)]
    tracker = Tracker.at(places)
    if run is not None:
        return [_chosen(_named(tracker, run, places.store), places)]
    assert sweep is not None
    trials = _finished(tracker.trials(sweep=sweep), f"trial of sweep {sweep!r}", places.store)
    if len({trial.dataset for trial in trials}) > 1:
        raise UserError(f"there are sweeps {sweep!r} of several data sets: give --run and one of {_listed(trials)}")
    if len(trials) < best:
        log.info("only %d trials of sweep %s have finished", len(trials), sweep)
    return [_chosen(trial, places) for trial in sorted(trials, key=_score, reverse=True)[:best]]


def _named(tracker: Tracker, wanted: str, store: str) -> TrialRecord:
    """The one trial with this id or name."""
    trials = tracker.trials()
    same_id = [trial for trial in trials if trial.run_id == wanted]
    trials = same_id or [trial for trial in trials if wanted in (trial.name, trial.full_name)]
    finished = _finished(trials, f"run {wanted!r}", store)
    if len(finished) > 1:
        raise UserError(f"{len(finished)} runs are named {wanted!r}: give --run and one of {_listed(finished)}")
    return finished[0]


def _finished(trials: Sequence[TrialRecord], what: str, store: str) -> list[TrialRecord]:
    """Those that left a checkpoint. Raises UserError if none did, with what has become of them."""
    finished = [trial for trial in trials if trial.checkpoint]
    if finished:
        return finished
    if not trials:
        raise UserError(f"there is no {what} in {store}; `adafocus train` or `adafocus tune` makes one")
    if len(trials) == 1:
        raise UserError(f"{what} has no result to use: it {_became(trials[0])}")
    counts = Counter(trial.outcome for trial in trials)
    raise UserError(f"no {what} has finished: {', '.join(f'{count} {outcome}' for outcome, count in counts.items())}")


def _became(trial: TrialRecord) -> str:
    words: dict[str, str] = {
        "running": "is still running, or was killed",
        "pruned": "was pruned",
        "stopped": "was stopped",
    }
    reached = f" in stage {trial.reached}" if trial.reached else ""
    reason = f": {trial.short_reason}" if trial.reason else ""
    return words.get(trial.outcome, str(trial.outcome)) + reached + reason


def _listed(trials: Sequence[TrialRecord]) -> str:
    """Ids, with what tells the runs apart."""
    return ", ".join(
        f"{trial.run_id} ({f'sweep {trial.sweep}' if trial.sweep else 'no sweep'}, {trial.dataset})" for trial in trials
    )


def _score(trial: TrialRecord) -> float:
    return -1.0 if trial.score is None else trial.score


def _chosen(trial: TrialRecord, places: Places) -> Chosen:
    return Chosen(places.runs / trial.checkpoint, trial.run_id, trial.full_name)
