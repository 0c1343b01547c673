"""A self-contained page of a sweep: settings and scores as parallel coordinates, importance, scores over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.visualize.embed import embed

Value = float | str
"""A setting's value: what is no number is shown as text."""


@dataclass(frozen=True, slots=True)
class PlottedTrial:
    """A trial on the page."""

    name: str
    outcome: str
    reason: str
    score: float | None
    """The newest one, in percent; of a pruned trial where it was stopped."""
    values: Mapping[str, Value]
    """By setting; empty of a trial that ended before that was known."""
    hours: float | None
    """From the start of the sweep to the trial's end; None while it runs."""
    compute: float
    """Hours that it has trained for itself: what it shares counts for the first trial that used it."""
    link: str
    """Address of its run in MLflow's dashboard."""


@dataclass(frozen=True, slots=True)
class Importance:
    """How much of the differences between scores each setting explains, and how far that can be trusted."""

    shares: Mapping[str, float]
    """By setting, adding up to 1; empty where it cannot be told."""
    method: str
    warning: str
    """Empty if there are enough trials."""


@dataclass(frozen=True, slots=True)
class SweepData:
    """All that the page shows."""

    name: str
    dataset: str
    recipe: str
    status: str
    metric: str
    trials: Sequence[PlottedTrial]
    importance: Importance
    needs_dashboard: bool
    """Do the links only work while `adafocus dashboard` runs?"""

    @property
    def settings(self) -> list[str]:
        """The settings that differ between trials."""
        keys = dict.fromkeys(key for trial in self.trials for key in trial.values)
        return [key for key in keys if len({str(trial.values.get(key)) for trial in self.trials if trial.values}) > 1]


def sweep_page(data: SweepData) -> str:
    """The page as HTML."""
    plain: dict[str, Any] = asdict(data)
    return embed("sweep.html", plain | {"settings": data.settings})
