"""How a trial of a sweep ended: finished, pruned, failed or stopped, with its score and the reason."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pipelines.sweeps.search.space import Point

Status = Literal["finished", "pruned", "failed", "stopped"]
STATUSES: tuple[Status, ...] = get_args(Status)
BUDGET_ENDED = "the time budget ended"


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """How a trial ended: finished if none of `error`, `pruned` and `stopped` says anything else."""

    name: str
    point: Point
    score: float | None = None
    """The data set's metric on the evaluation split, in percent; of a trial that did not finish, its last one. None if
    nothing was evaluated."""
    checkpoint: Path | None = None
    error: str = ""
    """Why it failed."""
    pruned: str = ""
    """Where the scheduler stopped it as weak."""
    stopped: str = ""
    """What stopped it, or kept it from starting."""
    begun: bool = True
    """False for a trial that the time budget left waiting."""

    @property
    def status(self) -> Status:
        """How it ended, in one word."""
        return "failed" if self.error else "pruned" if self.pruned else "stopped" if self.stopped else "finished"

    @property
    def reason(self) -> str:
        """Why it did not finish; empty if it did."""
        return self.error or self.pruned or self.stopped


def has_passed(deadline: float | None) -> bool:
    """Is it later than the deadline, on the monotonic clock? None: there is no deadline."""
    return deadline is not None and time.monotonic() >= deadline
