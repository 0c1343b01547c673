"""What the page of a sweep shows, out of its trials' records: settings, scores, time, compute, importance."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence

from pipelines.reporting.epochs import EpochTimes
from pipelines.tracking.client import Tracker
from pipelines.tracking.records import SweepRecord, TrialRecord
from pipelines.visualize.sweep_page import Importance, PlottedTrial, SweepData, Value

ENOUGH_TRIALS = 20
"""Finished trials below which importance is shown with a warning."""
FEWEST_TRIALS = 4
"""Finished trials below which it is not computed."""
LOG_RATIO = 30.0
"""Largest over smallest value of a setting from which on it is taken by its logarithm."""
METHOD = "fANOVA (Optuna), of finished trials"


def sweep_data(
    tracker: Tracker, sweep: SweepRecord, trials: Sequence[TrialRecord], times: EpochTimes, metric: str
) -> SweepData:
    """Collect a sweep's page."""
    plotted = []
    seen: set[tuple[str, int, int]] = set()
    for trial in sorted(trials, key=lambda each: (each.ended_ms or 2**60, each.started_ms)):
        epochs = times.of(trial.run_id)
        new = {key: seconds for key, seconds in epochs.items() if key not in seen}
        seen |= new.keys()
        ended = trial.ended_ms if trial.outcome not in ("running", "stale") else None
        plotted.append(
            PlottedTrial(
                name=trial.name,
                outcome=trial.outcome,
                reason=trial.short_reason,
                score=trial.newest_score,
                values={key: plain_value(value) for key, value in (trial.point or {}).items()},
                hours=None if ended is None else (ended - sweep.started_ms) / 3_600_000,
                compute=sum(new.values()) / 3600,
                link=tracker.address(trial.experiment_id, trial.run_id),
            )
        )
    return SweepData(
        name=sweep.sweep,
        dataset=sweep.dataset,
        recipe=sweep.recipe,
        status=sweep.status.lower(),
        metric=metric,
        trials=plotted,
        importance=importance(plotted),
        needs_dashboard=not tracker.is_server,
    )


def plain_value(value: object) -> Value:
    """A setting's value as the page shows it."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def importance(trials: Sequence[PlottedTrial]) -> Importance:
    """How much each setting matters, by the trials that have finished: the score of a pruned one is an earlier one."""
    done = [trial for trial in trials if trial.outcome == "finished" and trial.values and math.isfinite(_score(trial))]
    shared = [key for key in done[0].values if all(key in each.values for each in done)] if done else []
    keys = [key for key in shared if len({str(each.values[key]) for each in done}) > 1]
    if len(done) < FEWEST_TRIALS or not keys or len({trial.score for trial in done}) < 2:
        few = f"{len(done)} finished trials" if done else "no finished trial"
        return Importance({}, METHOD, f"{few} of different settings and scores: too few to say what matters")
    warning = ""
    if len(done) < ENOUGH_TRIALS:
        warning = f"only {len(done)} finished trials: below {ENOUGH_TRIALS} such shares may be chance"
    return Importance(_shares(done, keys), METHOD, warning)


def _score(trial: PlottedTrial) -> float:
    return math.nan if trial.score is None else trial.score


def _column(trials: Sequence[PlottedTrial], key: str) -> list[Value]:
    """A setting's values; all as texts where one of them is no number, such as `None`."""
    values = [trial.values[key] for trial in trials]
    return [str(value) for value in values] if any(isinstance(value, str) for value in values) else values


def _shares(trials: Sequence[PlottedTrial], keys: Sequence[str]) -> dict[str, float]:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("optuna").setLevel(logging.WARNING)
    columns = {key: _column(trials, key) for key in keys}
    distributions = {key: _distribution(values) for key, values in columns.items()}
    study = optuna.create_study(direction="maximize")
    for number, trial in enumerate(trials):
        params = {key: values[number] for key, values in columns.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=trial.score))
    with warnings.catch_warnings(action="ignore"):
        shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {key: float(value) for key, value in shares.items()}


def _distribution(values: Sequence[Value]) -> object:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if all(not isinstance(value, str) for value in values):
        low, high = float(min(values)), float(max(values))
        return FloatDistribution(low, high, log=low > 0 and high / low >= LOG_RATIO)
    return CategoricalDistribution(sorted(set(map(str, values))))
