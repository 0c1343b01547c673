"""Which finished trial is meant: a run's name or id, a sweep or a folder in; checkpoints, the best first, out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adafocus.methods import find_method
from pipelines.paths import Places
from pipelines.reporting.report import Trial, trial_of
from pipelines.tracking.client import MlflowRun, Tracker
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
    trials = _finished(tracker.find("trial", sweep=sweep), f"trial of sweep {sweep!r}", places.store)
    if len({trial.info.experiment_id for trial in trials}) > 1:
        raise UserError(
            f"there are sweeps {sweep!r} of several data sets: give --run and one of {_listed(trials, tracker)}"
        )
    if len(trials) < best:
        log.info("only %d trials of sweep %s have finished", len(trials), sweep)
    return [_chosen(trial, places) for trial in sorted(trials, key=_score, reverse=True)[:best]]


def _named(tracker: Tracker, wanted: str, store: str) -> MlflowRun:
    """The one trial with this id or name."""
    trials = tracker.find("trial")
    same_id = [trial for trial in trials if trial.info.run_id == wanted]
    trials = same_id or [trial for trial in trials if wanted in (trial.info.run_name, _full_name(trial))]
    finished = _finished(trials, f"run {wanted!r}", store)
    if len(finished) > 1:
        raise UserError(
            f"{len(finished)} runs are named {wanted!r}: give --run and one of {_listed(finished, tracker)}"
        )
    return finished[0]


def _finished(trials: Sequence[MlflowRun], what: str, store: str) -> list[MlflowRun]:
    """Those that left a checkpoint. Raises UserError if none did, with what has become of them."""
    finished = [trial for trial in trials if "adafocus.checkpoint" in trial.data.tags]
    if finished:
        return finished
    if not trials:
        raise UserError(f"there is no {what} in {store}; `adafocus train` or `adafocus tune` makes one")
    if len(trials) == 1:
        raise UserError(f"{what} has no result to use: it {_became(trial_of(trials[0]))}")
    counts = Counter(trial_of(trial).ending for trial in trials)
    raise UserError(f"no {what} has finished: {', '.join(f'{count} {ending}' for ending, count in counts.items())}")


def _became(trial: Trial) -> str:
    words = {"running": "is still running, or was killed", "pruned": "was pruned", "stopped": "was stopped"}
    reached = f" in stage {trial.reached}" if trial.reached else ""
    return words.get(trial.ending, trial.ending) + reached + (f": {trial.reason}" if trial.reason else "")


def _listed(trials: Sequence[MlflowRun], tracker: Tracker) -> str:
    """Ids, with what tells the runs apart."""
    lines = []
    for trial in trials:
        dataset = tracker.client.get_experiment(trial.info.experiment_id).name
        sweep = trial.data.tags.get("adafocus.sweep")
        lines.append(f"{trial.info.run_id} ({f'sweep {sweep}' if sweep else 'no sweep'}, {dataset})")
    return ", ".join(lines)


def _full_name(trial: MlflowRun) -> str:
    return f"{trial.data.tags.get('adafocus.sweep', '')} {trial.info.run_name}".strip()


def _score(trial: MlflowRun) -> float:
    return float(
        trial.data.metrics[
            f"{find_method(trial.data.params.get('method', 'adafocus')).last}/val_{trial.data.tags['adafocus.metric']}"
        ]
    )


def _chosen(trial: MlflowRun, places: Places) -> Chosen:
    return Chosen(places.runs / trial.data.tags["adafocus.checkpoint"], trial.info.run_id, _full_name(trial))
