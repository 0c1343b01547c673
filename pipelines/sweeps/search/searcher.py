"""The searcher of a sweep: which points are tried next, by Optuna's TPE, which learns from the trials before."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from ray import tune
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from pipelines.sweeps.search.space import Point
from pipelines.sweeps.sweep import Sweep

log = logging.getLogger(__name__)

TPE_DRAWS = 20
"""So often TPE may draw a point that was tried already before the next one is drawn at random."""
RANDOM_DRAWS = 1000
"""So many random draws without a new point mean that all were tried."""


@dataclass(frozen=True, slots=True)
class PastTrial:
    """A trial of an earlier start: its point and final score, or the score at the epoch at which it was pruned."""

    point: Point
    score: float
    pruned_epoch: int | None = None
    """Counted through all stages; None if it finished."""


class DistinctSearch(OptunaSearch):
    """Optuna's TPE that tries no point twice and ends when no point is left to try.

    TPE likes to draw what was good, and from a few choices it soon draws nothing else. A pruned trial counts as pruned:
    its score belongs to another stage than those of finished ones, and Optuna ranks it by how far it came.
    """

    def __init__(self, *arguments: Any, key: Callable[[Point], str], pruned: Mapping[str, int], **named: Any) -> None:
        """`key` names a point's trial; `pruned` holds the ids of the trials that the scheduler has stopped."""
        super().__init__(*arguments, **named)
        self._key, self._pruned = key, pruned
        self._random = RandomSampler(named.get("seed"))
        self._tried: set[str] = set()
        self.exhausted = False
        """No point is left to try."""

    def add_past_trial(self, past: PastTrial) -> None:
        """Take a trial of an earlier start into account."""
        self._tried.add(self._key(past.point))
        if past.pruned_epoch is None:
            self.add_evaluated_point(past.point, past.score)
        else:
            trial = optuna.create_trial(
                params=past.point,
                distributions=self._space,
                state=TrialState.PRUNED,
                intermediate_values={past.pruned_epoch: past.score},
            )
            self._ot_study.add_trial(trial)

    def suggest(self, trial_id: str) -> Point | str:
        """A point that was not tried yet: of TPE, else a random one, else none."""
        for number in range(TPE_DRAWS + RANDOM_DRAWS):
            if number >= TPE_DRAWS:
                if self._key(drawn := self._draw()) in self._tried:
                    continue
                self._ot_study.enqueue_trial(drawn)
            point: Point = super().suggest(trial_id)
            if (key := self._key(point)) not in self._tried:
                self._tried.add(key)
                return point
            self._ot_study.tell(self._ot_trials.pop(trial_id), state=TrialState.FAIL)  # which TPE leaves out
        self.exhausted = True
        log.info("%d draws gave no trial that was not there before: the search ends", RANDOM_DRAWS)
        return str(Searcher.FINISHED)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Let Optuna know how a trial ended; without a result it counts as pruned."""
        super().on_trial_complete(trial_id, None if trial_id in self._pruned else result, error)

    def _draw(self) -> Point:
        """A random point."""
        return {
            name: self._random.sample_independent(self._ot_study, None, name, distribution)
            for name, distribution in self._space.items()
        }


def make_searcher(
    sweep: Sweep, past: Sequence[PastTrial], begun: Sequence[Point], pruned: Mapping[str, int]
) -> DistinctSearch:
    """Optuna's TPE over the sweep's distributions, seeded by the recipe's seed and the number of trials so far.

    `begun`: points that have to be tried first; `pruned`: see `DistinctSearch`.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    domains = {
        key: tune.choice(values) if name == "choice" else getattr(tune, name)(*_whole_numbers(name, values))
        for key, (name, values) in sweep.space.sample.items()
    }
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that a database could not store tuples
        distributions = OptunaSearch.convert_search_space(domains)
    search = DistinctSearch(
        distributions,
        metric="score",
        mode="max",
        points_to_evaluate=list(begun),
        seed=(sweep.config.seed + len(past) + len(begun)) % 2**32,  # NumPy takes no larger one
        key=partial(sweep.trial_key, version=sweep.version),
        pruned=pruned,
    )
    for trial in past:
        search.add_past_trial(trial)
    return search


def _whole_numbers(name: str, values: list[Any]) -> list[Any]:
    return [int(value) for value in values] if name == "randint" else values
