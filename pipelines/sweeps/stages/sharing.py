"""How much work trials saved each other: a stage that several trials need is trained once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from adafocus import checkpoint


@dataclass(frozen=True, slots=True)
class Reuse:
    """The work that a sweep's trials shared. Hours are training time as the stages themselves recorded it."""

    stages_trained: int
    """Stages that were begun after the sweep began."""
    stages_reused: int
    """Times that a trial used a stage that was finished already, by another trial or before the sweep."""
    hours_trained: float
    hours_saved: float
    """Training time if each trial had trained its stages for itself, less the time that was trained."""

    def metrics(self) -> dict[str, float]:
        """The numbers as metrics of the sweep's run."""
        return {f"reuse/{name}": float(getattr(self, name)) for name in self.__dataclass_fields__}

    def line(self) -> str:
        """The numbers in a line of text."""
        return (
            f"stages: {self.stages_trained} trained in {_hours(self.hours_trained)}, {self.stages_reused} times one "
            f"was found finished, which saved {_hours(self.hours_saved)}"
        )


def measure_reuse(trials: Iterable[Iterable[Path]], since_ms: int) -> Reuse:
    """Count what trials trained and what they reused. `trials`: for each trial that was started the folders of its
    stages, finished or not.

    A stage whose first epoch ended after `since_ms` was trained for one of these trials, and reused by the others.
    """
    uses = Counter(folder for folders in trials for folder in folders if (folder / checkpoint.META).exists())
    trained = reused = 0
    hours_trained = hours_saved = 0.0
    for folder, count in uses.items():
        meta = checkpoint.read_meta(folder)
        new = bool(meta.history) and meta.history[0]["time_ms"] >= since_ms
        trained, reused = trained + new, reused + count - new
        hours_trained += new * meta.seconds / 3600
        hours_saved += (count - new) * meta.seconds / 3600
    return Reuse(trained, reused, hours_trained, hours_saved)


def _hours(hours: float) -> str:
    return f"{hours:.1f} stage-hours" if hours >= 1 else f"{hours * 3600:.0f} stage-seconds"
