"""What of a sweep is left to run: MLflow says what has become of every trial, scheduler and search learn from it."""

from __future__ import annotations

import json
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
from pipelines.sweeps.trial import score_name
from pipelines.tracking.client import MlflowRun, Run, Tracker

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
    found = {}
    for run in tracker.find("trial", sweep=sweep.name):
        tags, point = run.data.tags, _point(sweep, run)
        folder = sweep.places.runs / tags.get("adafocus.checkpoint", "")
        score = run.data.metrics.get(score_name(method_of(sweep.config).last, metric), 0.0)
        if run.info.status != "FINISHED" or point is None:
            continue
        if pruned := tags.get("adafocus.pruned"):
            judged = run.data.metrics.get(score_name(sweep.judged, metric), 0.0)
            found[tags["adafocus.trial"]] = TrialOutcome(show_point(point), point, judged, pruned=pruned)
        elif "adafocus.checkpoint" in tags and (folder / checkpoint.META).exists():
            found[tags["adafocus.trial"]] = TrialOutcome(show_point(point), point, score, folder)
    if found:
        log.info("%d trials are finished from before", len(found))
    return found


def make_plan(sweep: Sweep, tracker: Tracker, metric: str, past: dict[str, TrialOutcome]) -> Plan:
    """What is left to try; scheduler and search know of the trials that need not run again."""
    scheduler = make_scheduler(sweep)
    runs = {run.data.tags["adafocus.trial"]: run for run in tracker.find("trial", sweep=sweep.name)}
    if isinstance(scheduler, Pruning):
        for key in past.keys() & runs.keys():
            scheduler.add_past_trial(
                runs[key].info.run_id, _judged_scores(sweep, Run(tracker.client, runs[key], tracker.uri), metric)
            )
    if sweep.search != "optuna":
        points = order_for_sharing(sweep.space.points(sweep.config, sweep.num_samples), sweep.config, sweep.digest)
        left = [point for point in points if sweep.trial_key(point, sweep.digest) not in past]
        return Plan(left, len(left), scheduler)
    count = max(sweep.num_samples - len(past), 0)
    begun = [point for key, run in runs.items() if key not in past and (point := _point(sweep, run))][:count]
    known = [
        PastTrial(each.point, each.score, int(runs[key].data.tags["adafocus.pruned_epoch"]) if each.pruned else None)
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


def _point(sweep: Sweep, run: MlflowRun) -> Point | None:
    """What a trial changes; None if its worker died before it could say so."""
    point = run.data.tags.get("adafocus.point")
    return typed_point(sweep.config, json.loads(point)) if point else None
