"""The scheduler of a sweep: which trials go on to the end and which stop early, by one of Ray Tune's schedulers.

Trials are compared in one stage only, the first that differs between them, by the data set's metric there: a score of
another stage means something else. Tune skips the comparison wherever `judged_epoch` is missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

REDUCTION = 3
"""Of so many trials that reach a rung, one goes on; a rung is so many times as far as the one before."""
FIRST_RUNG = 9
"""The first rung is at this fraction of the stage's epochs, so that there are two of them at least."""


COMPARED = {"time_attr": "judged_epoch", "metric": "judged_score", "mode": "max"}
"""By what a scheduler compares trials: arguments that Ray Tune's schedulers have in common."""


@dataclass(frozen=True)
class _EarlierTrial:
    """What Tune's schedulers need of a trial that does not run."""

    trial_id: str


class Pruning(TrialScheduler):
    """A scheduler that stops weak trials, records which it stopped, and learns from trials of an earlier start of the
    sweep. To be mixed in before one of Ray Tune's schedulers."""

    def __init__(self, **settings: Any) -> None:
        """`settings` are those of Tune's scheduler."""
        super().__init__(**settings)
        self.pruned: dict[str, int] = {}
        """Trial -> epoch of the judged stage after which it was stopped."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Go on or stop, as Tune's scheduler decides."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.STOP:
            self.pruned[trial.trial_id] = result["judged_epoch"]
        return decision

    def add_past_trial(self, name: str, scores: Iterable[tuple[int, float]]) -> None:
        """Take a finished or pruned trial into account: (epoch of the judged stage, score), in order."""
        trial = _EarlierTrial(f"past-{name}")
        self.on_trial_add(None, trial)
        for epoch, score in scores:
            super().on_trial_result(None, trial, {"judged_epoch": epoch, "judged_score": score})


class Asha(Pruning, ASHAScheduler):
    """ASHA: at rungs of more and more epochs only the best trials go on."""

    def __init__(self, max_epochs: int) -> None:
        """`max_epochs`: of the stage in which trials are compared."""
        super().__init__(
            **COMPARED,
            max_t=max_epochs,
            grace_period=max(1, max_epochs // FIRST_RUNG),
            reduction_factor=REDUCTION,
            stop_last_trials=False,  # reaching the last rung is not the end: other stages follow
        )


def make_fifo(max_epochs: int) -> TrialScheduler:
    """A scheduler that lets every trial run to its end."""
    return FIFOScheduler()
