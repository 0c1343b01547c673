"""Stage I: focuser and classifier learn on patches at random places; the glancer is frozen (as the reference)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from adafocus.data.loader import Batch
from adafocus.models.adafocus import Patches
from adafocus.stages.stage import Collected, Logs, Stage


class Warmup(Stage):
    """One random patch per frame, or one place per clip."""

    name = "warmup"
    trains = ("focuser", "classifier")
    reads: ClassVar[tuple[str, ...]] = (
        *("model.patch_size", "model.action_per", "model.classifier", "model.dropout", "model.reuse_glance"),
        "warmup",
    )
    patches: ClassVar[Patches | None] = "random"

    def collect(self, batch: Batch) -> Collected:
        """Glancer's outputs and patches: nothing here needs a gradient."""
        collected = super().collect(batch)
        seen = self.fast.look(collected["glance"], collected["focus"], self.patch_source(collected))
        return {"glance": seen.glance, "patches": seen.patches_BTCPP, "target": collected["target"]}

    def patch_source(self, collected: Collected) -> Patches | Tensor:
        """Where the focuser looks: a name, or corners int64 (B, S, 2)."""
        return self.random_corners(collected["glance"])

    def features(self, patches_BTCPP: Tensor) -> Tensor:
        """The focuser's features, with or without a graph."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and "focuser" in self.learning_parts()):
            return self.fast.focus(patches_BTCPP)

    def forward(self, collected: Collected) -> tuple[Tensor, Logs]:
        """Cross-entropy of every prediction that follows an action: every exit, or the whole clip's."""
        logits_BTK = self.model.classify(collected["glance"], self.features(collected["patches"]))
        target = collected["target"]
        loss = self.judge(self.model.decisions(logits_BTK), target)
        return loss, {"accuracy": (logits_BTK[:, -1].argmax(1) == target).float().mean() * 100}
