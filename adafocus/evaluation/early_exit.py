"""Early exit: a clip's exits are computed one after the other, until the model is sure enough.

Clips that have stopped are taken out of the batch, and exits at which nobody may stop are computed together.

Shapes: B clips, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adafocus.data.batches import Batch
from adafocus.evaluation.exit_thresholds import NOBODY, Criterion, certainty
from adafocus.models.adafocus import AdaFocus, Patches
from adafocus.models.frame_source import TensorFrames
from adafocus.models.outputs import State


@dataclass(frozen=True, slots=True)
class ExitRule:
    """Says which clips stop at an exit."""

    thresholds: tuple[float, ...]
    """One for every exit; the last lets every clip stop."""
    criterion: Criterion
    budget: float
    """The mean GFLOPs per video that they are meant for."""

    def leaves(self, number: int, logits_BK: Tensor) -> Tensor:
        """Which clips stop at the exit of this number (from 0), bool (B,)."""
        return certainty(logits_BK, self.criterion) >= self.thresholds[number]

    def portions(self) -> list[range]:
        """The exits in runs that are computed together: after the last of each a clip may stop."""
        ends = [number + 1 for number, threshold in enumerate(self.thresholds) if threshold < NOBODY]
        return [range(first, end) for first, end in zip([0, *ends], ends, strict=False)]


@torch.no_grad()
def predict_early(model: AdaFocus, batch: Batch, rule: ExitRule, patches: Patches = "policy") -> tuple[Tensor, Tensor]:
    """Each clip's logits_BK at the exit where it stops, and those exits, int64 (B,) from 0. For models
    that save early."""
    clips, device = len(batch.clip_ids), batch.glance_BTCHW.device
    logits_BK = torch.zeros(clips, model.num_classes, device=device)
    exits_B = torch.zeros(clips, dtype=torch.int64, device=device)
    left_L, state = torch.arange(clips, device=device), State()
    for portion in rule.portions():
        frames = TensorFrames(batch.glance_BTCHW, batch.focus_BTCHW, left_L)
        output = model.advance(frames, portion, state, patches)
        leaves_L = rule.leaves(portion[-1], output.prediction_BK)
        leaving, staying = leaves_L.nonzero()[:, 0], (~leaves_L).nonzero()[:, 0]  # numbers: each mask would wait anew
        logits_BK[left_L[leaving]] = output.prediction_BK[leaving].float()
        exits_B[left_L[leaving]] = portion[-1]
        left_L, state = left_L[staying], output.state.rows(staying)
        if not len(left_L):
            break
    return logits_BK, exits_B
