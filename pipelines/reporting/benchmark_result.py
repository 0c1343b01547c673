"""The result of a benchmark, as its run in MLflow holds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from adafocus.methods import find_method


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """The result of one benchmark: facts and rows as they were logged."""

    name: str
    run_id: str
    trial: str
    """Run id of the trial that was measured; a folder's name if it was none."""
    facts: dict[str, Any]
    """What was measured, on what data and device."""
    rows: list[dict[str, Any]]
    """The fields of `BenchmarkRow`, one row for each source of patches and precision."""
    online: dict[str, list[dict[str, float]]]
    """Source of patches -> accuracy and compute after 1, 2, ... frames."""
    exits: list[dict[str, Any]] = field(default_factory=list)
    """The fields of `ExitPoint`, for each budget of early exit; empty where that was not measured."""

    @property
    def score(self) -> float:
        """The first row's accuracy by the data set's metric, in percent. That row is the policy's if there is one."""
        return float(self.rows[0][self.facts["metric"]])

    @property
    def title(self) -> str:
        """The name, and the stage if it is not the last one."""
        last = find_method(self.facts.get("method", "adafocus")).last
        stage = self.facts.get("stage", last)
        return self.name if stage == last else f"{self.name}, after {stage}"

    @property
    def exit_conditions(self) -> str:
        """What thresholds of early exit were solved on, in words."""
        kind = {"train": "clips that it was trained on", "held-out": "clips that its training has left out"}
        clips = f"{self.facts['exit.num_clips']} {kind[self.facts['exit.clips']]}"
        return f"thresholds of {self.facts['exit.criterion']} from {clips}"

    @property
    def conditions(self) -> str:
        """Data, device and batch size of the measurement, in words."""
        facts = self.facts
        count = facts.get("threads", 0) if facts["device"] == "cpu" else 0
        threads = f", {count} thread{'s' if count > 1 else ''}" if count else ""
        return (
            f"{facts['clips']} clips of split {facts['split']}, {facts['device']}{threads}, batch {facts['batch_size']}"
        )
