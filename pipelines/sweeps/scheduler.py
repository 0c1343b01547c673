"""The scheduler of a sweep: which trials go on to the end and which stop early, by Ray Tune's ASHA or not at all.

Trials are compared in one stage only, the first that differs between them, by the data set's metric there: a score of
another stage means something else. Tune skips the comparison wherever `judged_epoch` is missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from pipelines.sweeps.sweep import Sweep

REDUCTION = 3
"""Of so many trials that reach a rung, one goes on; a rung is so many times as far as the one before."""
FIRST_RUNG = 9
"""The first rung is at this fraction of the stage's epochs, so that there are two of them at least."""


class PruningScheduler(ASHAScheduler):
    """ASHA that records which trials it stopped, and takes trials of an earlier start of the sweep into account."""

    def __init__(self, max_epochs: int) -> None:
        """`max_epochs`: of the stage in which trials are compared."""
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
        """Go on or stop, as ASHA decides."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.STOP:
            self.pruned[trial.trial_id] = result["judged_epoch"]
        return decision

    def add_past_trial(self, name: str, scores: Iterable[tuple[int, float]]) -> None:
        """Take a finished or pruned trial into account: (epoch of the judged stage, score), in order."""
        trial = SimpleNamespace(trial_id=f"past-{name}")
        self.on_trial_add(None, trial)
        for epoch, score in scores:
            super().on_trial_result(None, trial, {"judged_epoch": epoch, "judged_score": score})


def make_scheduler(sweep: Sweep) -> TrialScheduler:
    """A new scheduler of the kind that the sweep asks for."""
    if sweep.scheduler == "fifo":
        return FIFOScheduler()
    key = f"{sweep.judged}.epochs"
    tried = sweep.space.grid.get(key) or sweep.space.sample.get(key, ("", []))[1]
    return PruningScheduler(max(int(float(value)) for value in tried or [getattr(sweep.config, sweep.judged).epochs]))
