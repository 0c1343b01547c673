"""What of a sweep is left to run: MLflow says what has become of every trial, scheduler and search learn from it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ray.tune.schedulers import TrialScheduler

from adafocus import checkpoint
from adafocus.methods import method_of
from pipelines.sweeps.outcomes import BUDGET_ENDED, TrialOutcome, has_passed
from pipelines.sweeps.scheduler import Pruning, make_scheduler
from pipelines.sweeps.searcher import DistinctSearch, PastTrial, make_searcher
from pipelines.sweeps.space import Point, order_for_sharing, typed_point
from pipelines.sweeps.sweep import Sweep, show_point
from pipelines.tracking.client import Tracker
from pipelines.tracking.records import TrialRecord
from pipelines.tracking.run import Run
from pipelines.tracking.score import score_name

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a start of a sweep has to try."""

    points: list[Point]
    """Those that are known beforehand; a search draws the others."""
    count: int
    """Of all trials."""
    scheduler: TrialScheduler
    searcher: DistinctSearch | None = None


def finished_trials(sweep: Sweep, tracker: Tracker, metric: str) -> dict[str, TrialOutcome]:
    """Trials that need not run again, by their key: finished with a checkpoint that is still there, or pruned."""
    past = {}
    for trial in tracker.trials(sweep=sweep.name):
        point, folder = _point(sweep, trial), sweep.places.runs / trial.checkpoint
        if trial.status != "FINISHED" or point is None:
            continue
        if trial.outcome == "pruned":
            judged = trial.score_in(sweep.judged, metric)
            past[trial.key] = TrialOutcome(show_point(point), point, judged, pruned=trial.reason)
        elif trial.checkpoint and (folder / checkpoint.META).exists():
            past[trial.key] = TrialOutcome(show_point(point), point, trial.score, folder)
    if past:
        log.info("%d trials are finished from before", len(past))
    return past


def make_plan(sweep: Sweep, tracker: Tracker, metric: str, past: dict[str, TrialOutcome]) -> Plan:
    """What is left to try; scheduler and search know of the trials that need not run again."""
    scheduler = make_scheduler(sweep)
    trials = {trial.key: trial for trial in tracker.trials(sweep=sweep.name)}
    if isinstance(scheduler, Pruning):
        for key in past.keys() & trials.keys():
            run = tracker.open(trials[key].run_id)
            scheduler.add_past_trial(run.run_id, _judged_scores(sweep, run, metric))
    if sweep.search != "optuna":
        points = order_for_sharing(sweep.space.points(sweep.config, sweep.num_samples), sweep.config, sweep.digest)
        left = [point for point in points if sweep.trial_key(point, sweep.digest) not in past]
        return Plan(left, len(left), scheduler)
    count = max(sweep.num_samples - len(past), 0)
    begun = [point for key, trial in trials.items() if key not in past and (point := _point(sweep, trial))][:count]
    known = [
        PastTrial(each.point, each.score or 0.0, trials[key].pruned_epoch if each.pruned else None)
        for key, each in past.items()
    ]
    return Plan(begun, count, scheduler, make_searcher(sweep, known, begun, getattr(scheduler, "pruned", {})))


def unreported_trials(
    sweep: Sweep, plan: Plan, reported: list[TrialOutcome], deadline: float | None
) -> list[TrialOutcome]:
    """Trials of which Tune said nothing: so that none is lost without a word."""
    keys = {sweep.trial_key(each.point, sweep.digest) for each in reported}
    lost = [point for point in plan.points if sweep.trial_key(point, sweep.digest) not in keys]
    stopped, error = (BUDGET_ENDED, "") if has_passed(deadline) else ("", "Ray Tune ended without starting it")
    undrawn = 0 if plan.searcher and plan.searcher.exhausted else plan.count - len(reported) - len(lost)
    shown = [(show_point(point), point) for point in lost]
    shown += [(f"trial {sweep.num_samples - undrawn + 1 + n}, not drawn yet", {}) for n in range(undrawn)]
    return [TrialOutcome(name, point, stopped=stopped, error=error, begun=False) for name, point in shown]


def _judged_scores(sweep: Sweep, run: Run, metric: str) -> list[tuple[int, float]]:
    """(epoch in the stage where trials are compared, score) of a trial, out of MLflow."""
    judged = sweep.judged
    name, first = score_name(judged, metric), method_of(sweep.config).first_epoch(sweep.config, judged)
    return [(step - first, value) for step, value in run.curve(name).items()]


def _point(sweep: Sweep, trial: TrialRecord) -> Point | None:
    """What a trial changes, as values; None if its worker died before it could say so."""
    return typed_point(sweep.config, trial.point) if trial.point else None
