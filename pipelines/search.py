"""Which trials go on and which come next: Ray Tune's schedulers and searches, set up for trials of several stages.

Trials are compared in one stage only, the first that differs between them, by the data set's metric there: a score of
another stage means something else. Tune skips the comparison wherever `judged_epoch` is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import optuna
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from pipelines.space import Point
from pipelines.sweep import Sweep

REDUCTION = 3
"""Of so many trials that reach a rung, one goes on; a rung is so many times as far as the one before."""
FIRST_RUNG = 9
"""The first rung is at this fraction of the stage's epochs, so that there are two of them at least."""


class Pruning(ASHAScheduler):
    """ASHA that knows which trials it has stopped, and can be told of trials of an earlier start."""

    def __init__(self, max_epochs: int) -> None:
        super().__init__(
            time_attr="judged_epoch",
            metric="judged_score",
            mode="max",
            max_t=max_epochs,
            grace_period=max(1, max_epochs // FIRST_RUNG),
            reduction_factor=REDUCTION,
            stop_last_trials=False,  # reaching the last rung is not the end: other stages follow
        )
        self.pruned: dict[str, int] = {}
        """Trial -> epoch of the judged stage after which it was stopped."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Go on or stop, as ASHA says."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.STOP:
            self.pruned[trial.trial_id] = result["judged_epoch"]
        return decision

    def learn(self, name: str, scores: Iterable[tuple[int, float]]) -> None:
        """Take a finished or pruned trial into account: (epoch of the judged stage, score), in order."""
        trial = SimpleNamespace(trial_id=f"past-{name}")
        self.on_trial_add(None, trial)
        for epoch, score in scores:
            super().on_trial_result(None, trial, {"judged_epoch": epoch, "judged_score": score})


def scheduler_for(sweep: Sweep) -> TrialScheduler:
    """The sweep's scheduler, new."""
    if sweep.scheduler == "fifo":
        return FIFOScheduler()
    key = f"{sweep.judged}.epochs"
    drawn = sweep.space.grid.get(key) or sweep.space.sample.get(key, ("", []))[1]
    return Pruning(max(int(float(value)) for value in drawn or [getattr(sweep.config, sweep.judged).epochs]))


def searcher_for(sweep: Sweep, known: Sequence[tuple[Point, float]], begun: Sequence[Point]) -> OptunaSearch:
    """Optuna's TPE over the sweep's distributions, seeded by the recipe's seed and the number of trials so far.

    `known`: points with their scores; `begun`: points that have to be tried first.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    domains = {
        key: tune.choice(values) if name == "choice" else getattr(tune, name)(*_whole(name, values))
        for key, (name, values) in sweep.space.sample.items()
    }
    search = OptunaSearch(
        OptunaSearch.convert_search_space(domains),
        metric="score",
        mode="max",
        points_to_evaluate=list(begun),
        seed=sweep.config.seed + len(known) + len(begun),
    )
    for point, score in known:
        search.add_evaluated_point(point, score)
    return search


def _whole(name: str, values: list[Any]) -> list[Any]:
    return [int(value) for value in values] if name == "randint" else values
