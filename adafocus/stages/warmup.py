"""Stage I: focuser and classifier learn on patches at random places; the glancer is frozen (as the reference)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from adafocus.config.schema import OptimConfig
from adafocus.data.loader import Batch
from adafocus.models.adafocus import Glance, Patches
from adafocus.stages.stage import Collected, Logs, Stage, prefix_loss


class Warmup(Stage):
    """One random patch per frame (per clip in the trimmed family)."""

    name = "warmup"
    patches: ClassVar[Patches | None] = "random"

    def collect(self, batch: Batch) -> Collected:
        """Glancer's outputs and random patches: nothing here needs a gradient."""
        collected = super().collect(batch)
        glance = self.fast.glance(collected["glance"])
        corners_BS2 = self.corners(glance)
        return {
            "glance": glance,
            "patches": self.model.crop(collected["focus"], corners_BS2),
            "target": collected["target"],
        }

    def corners(self, glance: Glance) -> Tensor:
        """Where the focuser looks, int64 (B, S, 2)."""
        return self.random_corners(glance)

    def features(self, patches_BTCPP: Tensor) -> Tensor:
        """The focuser's features, with or without a graph."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and "focuser" in self.learning_parts()):
            return self.fast.focus(patches_BTCPP)

    def forward(self, collected: Collected) -> tuple[Tensor, Logs]:
        """Cross-entropy of every prediction that follows an action: all prefixes, or the whole trimmed clip."""
        settings = self.settings
        assert isinstance(settings, OptimConfig)
        logits_BTK = self.model.classify(collected["glance"], self.features(collected["patches"]))
        target = collected["target"]
        loss = prefix_loss(self.model.decisions(logits_BTK), target, settings.label_smoothing)
        return loss, {"accuracy": (logits_BTK[:, -1].argmax(1) == target).float().mean() * 100}
