"""Ray Tune's callback that records how each trial ended, and closes the MLflow runs of those that could not."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ray import tune
from ray.air.execution._internal import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError

from pipelines.sweeps.outcomes import BUDGET_ENDED, TrialOutcome, has_passed
from pipelines.sweeps.search.space import Point, show_point
from pipelines.sweeps.sweep import Sweep
from pipelines.sweeps.workers.outages import OutageError
from pipelines.sweeps.workers.worker_group import release_group
from pipelines.tracking.client import Tracker
from pipelines.tracking.run import FinalStatus

log = logging.getLogger(__name__)


class OutcomeCallback(tune.Callback):
    """Records the outcome of each trial, in the order in which they end."""

    def __init__(self, sweep: Sweep, tracker: Tracker, scheduler: Any, deadline: float | None) -> None:
        """`deadline`: when the time budget ends, on the monotonic clock."""
        self.sweep, self.tracker, self.scheduler, self.deadline = sweep, tracker, scheduler, deadline
        self.outcomes: list[TrialOutcome] = []
        count_memory_kills_as_deaths()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a trial that returned, or that the scheduler or the time budget stopped."""
        point, last = point_of(trial.config), trial.last_result or {}
        release_group(last.get("group"))
        name, score = show_point(point), float(last["score"]) if last.get("evaluated") else None
        if "failure" in last:
            self.outcomes.append(TrialOutcome(name, point, error=last["failure"]))
        elif "folder" in last:
            self.outcomes.append(TrialOutcome(name, point, score, Path(last["folder"])))
        elif trial.trial_id in getattr(self.scheduler, "pruned", {}):
            epoch, judged = self.scheduler.pruned[trial.trial_id], self.sweep.judged
            reason = f"pruned in {judged} after {epoch} of its epochs, epoch {last['clock']} in all"
            log.info("%s: %s", name, reason)
            self.outcomes.append(TrialOutcome(name, point, score, pruned=reason))
            self._close_runs(point, "FINISHED", reason, last["clock"])
        elif has_passed(self.deadline):
            self.outcomes.append(TrialOutcome(name, point, score, stopped=BUDGET_ENDED, begun=bool(last)))
            self._close_runs(point, "KILLED", BUDGET_ENDED)
        else:
            reason = f"Ray Tune ended it after epoch {last.get('clock', 0)} and did not say why"
            log.error("%s failed: %s", name, reason)
            self.outcomes.append(TrialOutcome(name, point, score, error=reason))
            self._close_runs(point, "FAILED", reason)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Log that a trial is started again, for its worker died."""
        release_group((trial.last_result or {}).get("group"))
        log.info("%s starts again, for %s", show_point(point_of(trial.config)), _reason(trial, "its worker died"))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a trial whose worker died more often than it is started again."""
        release_group((trial.last_result or {}).get("group"))
        point = point_of(trial.config)
        reason = _reason(trial, f"its worker died {trial.num_failures} times")
        log.error("%s failed: %s", show_point(point), reason)
        self.outcomes.append(TrialOutcome(show_point(point), point, error=reason))
        self._close_runs(point, "FAILED", reason)

    def _close_runs(self, point: Point, status: FinalStatus, reason: str, pruned_epoch: int | None = None) -> None:
        """Close the trial's run in MLflow."""
        key = self.sweep.trial_key(point, self.sweep.version)
        for trial in self.tracker.trials(sweep=self.sweep.name, trial=key):
            self.tracker.open(trial.run_id).try_to_finish(status, reason, pruned_epoch)


def point_of(config: dict[str, Any]) -> Point:
    """What a trial changes, out of its configuration in Tune: a grid's point is one entry, a search's its keys."""
    point: Point = config.get("point", config)
    return point


def count_memory_kills_as_deaths() -> None:
    """Make Tune treat a worker that Ray killed for want of memory as one that died: in Ray 2.60 its error is none of
    those that Tune knows, and ends the whole sweep."""
    original = RayActorManager._actor_task_failed
    if original.__module__ == __name__:
        return

    def failed(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=str(exception))
        original(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = failed


def _reason(trial: Any, death: str) -> str:
    """Why a trial's worker ended, in a line: an outage if it raised one, else `death` and what Ray says of it."""
    outages = [line.partition(f"{OutageError.__name__}: ")[2] for line in _failure_lines(trial)]
    if causes := [line for line in outages if line]:
        return f"something that it needs was out of reach: {causes[-1]}"[:300]
    return f"{death}: {cause_of_death(trial)}"


def cause_of_death(trial: Any) -> str:
    """Why a trial's worker died, in a line: Ray's explanations are long."""
    lines = _failure_lines(trial)
    of_memory = [line for line in lines if "memory" in line.lower()]
    return [*of_memory, *lines[-1:], "nothing is known of it"][0][:200]


def _failure_lines(trial: Any) -> list[str]:
    """What Tune has written of a trial's last failure."""
    local = Path(trial.error_file)  # where Tune's own `get_error` looks it arrives later
    last = local.read_text("utf-8").rpartition("Failure # ")[2] if local.exists() else ""
    return [line.strip() for line in last.splitlines() if line.strip()]
