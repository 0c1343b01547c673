"""The plan of a sweep's start: which trials are left, by the outcomes that MLflow holds of earlier starts."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ray.tune.schedulers import TrialScheduler

from adafocus import checkpoint
from pipelines.sweeps.outcomes import BUDGET_ENDED, TrialOutcome, has_passed
from pipelines.sweeps.search.scheduler import Pruning
from pipelines.sweeps.search.scheduler_table import find_scheduler
from pipelines.sweeps.search.searcher import DistinctSearch, PastTrial, make_searcher
from pipelines.sweeps.search.space import Point, order_for_sharing, show_point, typed_point
from pipelines.sweeps.sweep import Sweep
from pipelines.tracking.client import Tracker
from pipelines.tracking.records import TrialRecord
from pipelines.tracking.run import Run
from pipelines.tracking.score import score_name

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a start of a sweep has to try, and what decides about it."""

    points: list[Point]
    """The points that are known beforehand; a searcher draws the others."""
    count: int
    """Number of all trials that are left."""
    scheduler: TrialScheduler
    searcher: DistinctSearch | None = None


def finished_trials(sweep: Sweep, tracker: Tracker, metric: str) -> dict[str, TrialOutcome]:
    """Outcomes of the trials that need not run again, by their keys: pruned, or finished with a checkpoint that is
    still there."""
    past = {}
    for trial in tracker.trials(sweep=sweep.name):
        point, folder = _point(sweep, trial), sweep.places.runs / trial.checkpoint
        if trial.status != "FINISHED" or point is None:
            continue
        if trial.outcome == "pruned":
            judged = trial.score_in(sweep.judged, metric)
            past[_key(sweep, trial)] = TrialOutcome(show_point(point), point, judged, pruned=trial.reason)
        elif trial.checkpoint and (folder / checkpoint.META).exists():
            past[_key(sweep, trial)] = TrialOutcome(show_point(point), point, trial.score, folder)
    if past:
        log.info("%d trials are finished from before", len(past))
    return past


def make_plan(sweep: Sweep, tracker: Tracker, metric: str, past: dict[str, TrialOutcome]) -> Plan:
    """Plan the trials that are left; scheduler and searcher learn from those that need not run again, `past`."""
    scheduler = make_scheduler(sweep)
    trials = {_key(sweep, trial): trial for trial in tracker.trials(sweep=sweep.name)}
    if isinstance(scheduler, Pruning):
        for key in past.keys() & trials.keys():
            run = tracker.open(trials[key].run_id)
            scheduler.add_past_trial(run.run_id, _judged_scores(sweep, run, metric))
    if sweep.search != "optuna":
        points = order_for_sharing(sweep.space.points(sweep.config, sweep.num_samples), sweep.config, sweep.version)
        left = [point for point in points if sweep.trial_key(point, sweep.version) not in past]
        return Plan(left, len(left), scheduler)
    count = max(sweep.num_samples - len(past), 0)
    begun = [point for key, trial in trials.items() if key not in past and (point := _point(sweep, trial))][:count]
    known = [
        PastTrial(each.point, each.score or 0.0, trials[key].pruned_epoch if each.pruned else None)
        for key, each in past.items()
    ]
    return Plan(begun, count, scheduler, make_searcher(sweep, known, begun, getattr(scheduler, "pruned", {})))


def make_scheduler(sweep: Sweep) -> TrialScheduler:
    """A new scheduler of the kind that the sweep asks for."""
    key = f"{sweep.judged}.epochs"
    tried = sweep.space.grid.get(key) or sweep.space.sample.get(key, ("", []))[1]
    epochs = [int(value) for value in tried or [getattr(sweep.config, sweep.judged).epochs]]
    scheduler: TrialScheduler = find_scheduler(sweep.scheduler).make(max(1, *epochs))
    return scheduler


def unreported_trials(
    sweep: Sweep, plan: Plan, reported: list[TrialOutcome], deadline: float | None
) -> list[TrialOutcome]:
    """Outcomes of the trials of which Tune reported nothing, so that none is missing from the result."""
    keys = {sweep.trial_key(each.point, sweep.version) for each in reported}
    unreported = [point for point in plan.points if sweep.trial_key(point, sweep.version) not in keys]
    stopped, error = (BUDGET_ENDED, "") if has_passed(deadline) else ("", "Ray Tune ended without starting it")
    undrawn = 0 if plan.searcher and plan.searcher.exhausted else plan.count - len(reported) - len(unreported)
    named = [(show_point(point), point) for point in unreported]
    named += [(f"trial {sweep.num_samples - undrawn + 1 + n}, not drawn yet", {}) for n in range(undrawn)]
    return [TrialOutcome(name, point, stopped=stopped, error=error, begun=False) for name, point in named]


def _judged_scores(sweep: Sweep, run: Run, metric: str) -> list[tuple[int, float]]:
    """A trial's scores in the stage where trials are compared: (epoch of that stage, score)."""
    judged = sweep.judged
    epochs_before = sweep.method.first_epoch(sweep.config, judged)
    return [(step - epochs_before, value) for step, value in run.curve(score_name(judged, metric)).items()]


def _key(sweep: Sweep, trial: TrialRecord) -> str:
    """The key that a trial has now: earlier versions may have logged another one for the same point."""
    point = _point(sweep, trial)
    return trial.key if point is None else sweep.trial_key(point, sweep.version)


def _point(sweep: Sweep, trial: TrialRecord) -> Point | None:
    """What a trial changes; None if its worker died before that was logged."""
    return typed_point(sweep.config, trial.point) if trial.point else None
