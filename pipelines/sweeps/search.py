"""Which trials go on and which come next: Ray Tune's schedulers and searches, set up for trials of several stages.

Trials are compared in one stage only, the first that differs between them, by the data set's metric there: a score of
another stage means something else. Tune skips the comparison wherever `judged_epoch` is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from pipelines.sweeps.space import Point
from pipelines.sweeps.sweep import Sweep

log = logging.getLogger(__name__)

REDUCTION = 3
"""Of so many trials that reach a rung, one goes on; a rung is so many times as far as the one before."""
FIRST_RUNG = 9
"""The first rung is at this fraction of the stage's epochs, so that there are two of them at least."""
TPE_DRAWS = 20
"""So often TPE may draw what was tried already before the next trial is drawn blindly."""
BLIND_DRAWS = 1000
"""So many blind draws without anything new mean that all was tried."""


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


@dataclass(frozen=True, slots=True)
class Known:
    """A trial of an earlier start: its point and final score, or the score at the epoch at which it was pruned."""

    point: Point
    score: float
    pruned_epoch: int | None = None
    """On the clock of all stages."""


class Distinct(OptunaSearch):
    """Optuna's TPE that tries no trial twice and ends when nothing is left to try.

    TPE likes to draw what was good, and from a few choices it soon draws nothing else. A pruned trial is told as such:
    its score belongs to another stage than those of finished ones, and Optuna ranks it by how far it came.
    """

    def __init__(self, *arguments: Any, key: Callable[[Point], str], pruned: Mapping[str, int], **named: Any) -> None:
        """`key` names a point's trial; `pruned` has the ids of the trials that were stopped as weak, as they come."""
        super().__init__(*arguments, **named)
        self._key, self._pruned = key, pruned
        self._random = RandomSampler(named.get("seed"))
        self._tried: set[str] = set()
        self.exhausted = False

    def learn(self, known: Known) -> None:
        """Take a trial of an earlier start into account."""
        self._tried.add(self._key(known.point))
        if known.pruned_epoch is None:
            self.add_evaluated_point(known.point, known.score)
        else:
            told = {"state": TrialState.PRUNED, "intermediate_values": {known.pruned_epoch: known.score}}
            self._ot_study.add_trial(optuna.create_trial(params=known.point, distributions=self._space, **told))

    def suggest(self, trial_id: str) -> Point | str:
        """A point that was not tried yet: of TPE, else drawn blindly, else none."""
        for number in range(TPE_DRAWS + BLIND_DRAWS):
            if number >= TPE_DRAWS:
                if self._key(blind := self._draw()) in self._tried:
                    continue
                self._ot_study.enqueue_trial(blind)
            point: Point = super().suggest(trial_id)
            if (key := self._key(point)) not in self._tried:
                self._tried.add(key)
                return point
            self._ot_study.tell(self._ot_trials.pop(trial_id), state=TrialState.FAIL)  # which TPE leaves out
        self.exhausted = True
        log.info("%d draws gave no trial that was not there before: the search ends", BLIND_DRAWS)
        return str(Searcher.FINISHED)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how a trial ended; without a result it counts as pruned."""
        super().on_trial_complete(trial_id, None if trial_id in self._pruned else result, error)

    def _draw(self) -> Point:
        return {
            name: self._random.sample_independent(self._ot_study, None, name, distribution)
            for name, distribution in self._space.items()
        }


def searcher_for(sweep: Sweep, known: Sequence[Known], begun: Sequence[Point], pruned: Mapping[str, int]) -> Distinct:
    """Optuna's TPE over the sweep's distributions, seeded by the recipe's seed and the number of trials so far.

    `begun`: points that have to be tried first; `pruned`: see `Distinct`.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    domains = {
        key: tune.choice(values) if name == "choice" else getattr(tune, name)(*_whole(name, values))
        for key, (name, values) in sweep.space.sample.items()
    }
    search = Distinct(
        OptunaSearch.convert_search_space(domains),
        metric="score",
        mode="max",
        points_to_evaluate=list(begun),
        seed=sweep.config.seed + len(known) + len(begun),
        key=partial(sweep.trial_key, digest=sweep.digest),
        pruned=pruned,
    )
    for each in known:
        search.learn(each)
    return search


def _whole(name: str, values: list[Any]) -> list[Any]:
    return [int(value) for value in values] if name == "randint" else values
