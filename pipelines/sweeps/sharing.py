"""How much work trials saved each other: a stage that several trials need is trained once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from adafocus import checkpoint


@dataclass(frozen=True, slots=True)
class Reuse:
    """Of all trials that were started. Hours are training time as recorded by the stages themselves."""

    stages_trained: int
    """Stages that were begun after the sweep was."""
    stages_reused: int
    """Times that a trial found a stage finished: another trial's, or an earlier run's."""
    hours_trained: float
    hours_saved: float
    """What the trials would have trained each for itself, less what was trained."""

    def metrics(self) -> dict[str, float]:
        """As logged to the sweep's run."""
        return {f"reuse/{name}": float(getattr(self, name)) for name in self.__dataclass_fields__}

    def line(self) -> str:
        """In words."""
        return (
            f"stages: {self.stages_trained} trained in {_hours(self.hours_trained)}, {self.stages_reused} times one "
            f"was found finished, which saved {_hours(self.hours_saved)}"
        )


def measure_reuse(trials: Iterable[Iterable[Path]], since_ms: int) -> Reuse:
    """`trials`: for each trial that was started the folders of its stages, finished or not.

    A stage whose first epoch ended after `since_ms` was trained for one of these trials, and found by the others.
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
