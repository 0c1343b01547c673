"""How each trial of a sweep ended, as Ray Tune tells it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.air.execution._internal import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError

from pipelines.sweeps.space import Point
from pipelines.sweeps.sweep import Sweep, show_point
from pipelines.sweeps.trial import OutageError, close
from pipelines.sweeps.worker_group import release_group
from pipelines.tracking.client import Ending, Run, Tracker

log = logging.getLogger(__name__)

OVER = "the time budget ended"


@dataclass(frozen=True, slots=True)
class TrialResult:
    """How a trial ended: finished if none of `error`, `pruned` and `stopped` says anything else."""

    name: str
    params: Point
    score: float = 0.0
    """The data set's metric on the evaluation split, in percent; of a trial that did not finish, its last one."""
    checkpoint: Path | None = None
    error: str = ""
    pruned: str = ""
    stopped: str = ""
    begun: bool = True
    """False for a trial that the time budget left waiting."""

    @property
    def status(self) -> str:
        """In one word."""
        return "failed" if self.error else "pruned" if self.pruned else "stopped" if self.stopped else "finished"


class Endings(tune.Callback):
    """Notes how each trial ended, and closes the MLflow runs of those that could not do it themselves."""

    def __init__(self, sweep: Sweep, tracker: Tracker, scheduler: Any, deadline: float | None) -> None:
        """`deadline`: when the time budget ends, on the monotonic clock."""
        self.sweep, self.tracker, self.scheduler, self.deadline = sweep, tracker, scheduler, deadline
        self.results: list[TrialResult] = []
        count_memory_kills_as_deaths()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It returned, or the scheduler or the time budget stopped it."""
        point, last = point_of(trial.config), trial.last_result or {}
        release_group(last.get("group"))
        name, score = show_point(point), float(last.get("score", 0.0))
        if "failure" in last:
            self.results.append(TrialResult(name, point, error=last["failure"]))
        elif "folder" in last:
            self.results.append(TrialResult(name, point, score, Path(last["folder"])))
        elif trial.trial_id in getattr(self.scheduler, "pruned", {}):
            epoch, judged = self.scheduler.pruned[trial.trial_id], self.sweep.judged
            reason = f"pruned in {judged} after {epoch} of its epochs, epoch {last['clock']} in all"
            log.info("%s: %s", name, reason)
            self.results.append(TrialResult(name, point, score, pruned=reason))
            self._close(point, "FINISHED", reason, pruned=reason, pruned_epoch=str(last["clock"]))
        elif is_over(self.deadline):
            self.results.append(TrialResult(name, point, score, stopped=OVER, begun=bool(last)))
            self._close(point, "KILLED", OVER)
        else:
            reason = f"Ray Tune ended it after epoch {last.get('clock', 0)} and did not say why"
            log.error("%s failed: %s", name, reason)
            self.results.append(TrialResult(name, point, score, error=reason))
            self._close(point, "FAILED", reason)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Its worker died, and it is started again."""
        release_group((trial.last_result or {}).get("group"))
        log.info("%s starts again, for %s", show_point(point_of(trial.config)), _why(trial, "its worker died"))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Its worker died more often than it is started again."""
        release_group((trial.last_result or {}).get("group"))
        point = point_of(trial.config)
        reason = _why(trial, f"its worker died {trial.num_failures} times")
        log.error("%s failed: %s", show_point(point), reason)
        self.results.append(TrialResult(show_point(point), point, error=reason))
        self._close(point, "FAILED", reason)

    def _close(self, point: Point, status: Ending, reason: str, **tags: str) -> None:
        key = self.sweep.trial_key(point, self.sweep.digest)
        for found in self.tracker.find("trial", sweep=self.sweep.name, trial=key):
            close(Run(self.tracker.client, found, self.tracker.uri), status, reason, **tags)


def point_of(config: dict[str, Any]) -> Point:
    """What a trial changes, out of what Tune hands it: a grid's point comes whole, a search's by its keys."""
    point: Point = config.get("point", config)
    return point


def count_memory_kills_as_deaths() -> None:
    """Let Tune take a worker that Ray killed for want of memory for one that died: in Ray 2.60 its error is none of
    those that Tune knows, and ends the whole sweep."""
    known = RayActorManager._actor_task_failed
    if known.__module__ == __name__:
        return

    def failed(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=str(exception))
        known(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = failed


def is_over(deadline: float | None) -> bool:
    """Has the time budget ended? None: there is none."""
    return deadline is not None and time.monotonic() >= deadline


def _why(trial: Any, died: str) -> str:
    """Why a trial's worker ended, in a line: it raised an OutageError, or it `died`."""
    outages = [line.partition(f"{OutageError.__name__}: ")[2] for line in _lines(trial)]
    if told := [line for line in outages if line]:
        return f"something that it needs was out of reach: {told[-1]}"[:300]
    return f"{died}: {_died(trial)}"


def _died(trial: Any) -> str:
    """Why a trial's worker died, in a line: Ray's explanations are long."""
    lines = _lines(trial)
    of_memory = [line for line in lines if "memory" in line.lower()]
    return [*of_memory, *lines[-1:], "nothing is known of it"][0][:200]


def _lines(trial: Any) -> list[str]:
    """What is known of a trial's last failure."""
    local = Path(trial.error_file)  # where Tune's own `get_error` looks it arrives later
    last = local.read_text().rpartition("Failure # ")[2] if local.exists() else ""
    return [line.strip() for line in last.splitlines() if line.strip()]
