"""A calibration: the thresholds of early exit for a row of budgets, as a checkpoint's meta.json keeps them.

They are solved on predictions of clips that the model is not judged by: those that it was trained on (as the
reference), or better a part of the training split that training has left out (`data.held_out`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from adafocus.evaluation.early_exit import ExitRule
from adafocus.evaluation.evaluate import Predictions
from adafocus.evaluation.exit_thresholds import ROUNDING, Criterion, certainty, exit_thresholds, shares_of_budget
from preprocessing.schema import UserError

CalibrationClips = Literal["train", "held-out"]
"""The clips that the model was trained on, or those of the training split that it was not."""

STEPS = 20
"""Budgets are multiples of the whole clip's cost by 1 / STEPS, from the first exit's cost on."""
SAVES_NOTHING = (
    "early exit saves nothing with this model: it looks at the whole clip before its first prediction, so that every "
    "exit costs the same"
)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Thresholds for a row of budgets."""

    criterion: Criterion
    clips: CalibrationClips
    """Of which kind the clips were that it was solved on."""
    num_clips: int
    digest: str
    """Of the index of their data set."""
    costs: list[float]
    """GFLOPs per video that have been computed by each exit."""
    budgets: list[float]
    """Mean GFLOPs per video, ascending; the last is the whole clip's cost."""
    thresholds: list[list[float]]
    """For each budget one for every exit."""

    @classmethod
    def of(cls, record: dict[str, Any]) -> Calibration | None:
        """What a meta.json holds; None if its checkpoint was not calibrated yet. Raises UserError for what is none."""
        try:
            return cls(**record) if record else None
        except TypeError as error:
            raise UserError(f"meta.json holds thresholds that make no sense ({error}): calibrate again") from None

    def rule(self, budget: float) -> ExitRule:
        """For a mean of at most `budget` GFLOPs per video: the rule of the largest calibrated budget within it.

        Raises UserError if there is none.
        """
        within = [number for number, each in enumerate(self.budgets) if each <= budget * (1 + ROUNDING)]
        if not within:
            raise UserError(
                f"a budget of {budget:g} GFLOPs is below {self.budgets[0]:.4g}, the least that this model is "
                f"calibrated for (a frame costs {self.costs[0]:.4g}, a whole clip {self.costs[-1]:.4g})"
            )
        return self.rules()[within[-1]]

    def rules(self) -> list[ExitRule]:
        """One for every budget."""
        pairs = zip(self.thresholds, self.budgets, strict=True)
        return [ExitRule(tuple(thresholds), self.criterion, budget) for thresholds, budget in pairs]

    def pro_rata(self, exits_N: Tensor) -> float:
        """Mean cost in which every exit has its share k / X of the total, as AdaFocusV2 counts it."""
        return float((exits_N + 1).double().mean()) / len(self.costs) * self.costs[-1]


def solve(
    predictions: Predictions, costs: list[float], *, criterion: Criterion, clips: CalibrationClips, digest: str
) -> Calibration:
    """The calibration that predictions of every exit give. Raises DivergedError for logits that are not finite."""
    predictions.check_finite()
    certainty_NX = certainty(predictions.logits_NTK, criterion)
    budgets = [costs[-1] * step / STEPS for step in range(1, STEPS + 1)]
    budgets = [budget for budget in budgets if budget >= costs[0] * (1 - ROUNDING)]
    thresholds = [exit_thresholds(certainty_NX, shares_of_budget(budget, costs)) for budget in budgets]
    return Calibration(criterion, clips, len(predictions.clip_ids), digest, costs, budgets, thresholds)
