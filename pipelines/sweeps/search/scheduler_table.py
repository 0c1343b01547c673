"""The table of schedulers. A new one is a small file and one line in SCHEDULERS."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from typing import Any

from preprocessing.schema import UserError


@dataclass(frozen=True, slots=True)
class SchedulerEntry:
    """One line of the table."""

    maker: str
    """`module.name` in this package, imported when a sweep begins: it takes the number of epochs of the stage in which
    trials are compared, and gives one of Ray Tune's schedulers."""
    prunes: bool = True
    """Does it stop weak trials early? Then it is a `scheduler.Pruning`."""

    def make(self, max_epochs: int) -> Any:
        """A new scheduler."""
        module, _, name = self.maker.partition(".")
        return getattr(importlib.import_module(f"{__package__}.{module}"), name)(max_epochs)


SCHEDULERS = {
    "fifo": SchedulerEntry("scheduler.make_fifo", prunes=False),
    "asha": SchedulerEntry("scheduler.Asha"),
}


def find_scheduler(name: str) -> SchedulerEntry:
    """The line of that name. Raises UserError that names the nearest known one."""
    if name not in SCHEDULERS:
        near = difflib.get_close_matches(name, SCHEDULERS, n=1, cutoff=0.0)[0]
        raise UserError(f"unknown scheduler {name!r}; the nearest known one is {near!r}")
    return SCHEDULERS[name]
