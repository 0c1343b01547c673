"""Stage 0: glancer and focuser learn to classify whole frames, each through its own last layer.

The two share no parameter, so one pass over the data with the sum of their losses trains both as two runs would.
"""

from __future__ import annotations

from torch import Tensor

from adafocus.config.schema import PretrainConfig
from adafocus.stages.stage import Collected, Logs, Stage


class Pretrain(Stage):
    """A video's logits are the mean of its frames'."""

    name = "pretrain"
    trains = ("glancer", "focuser")
    reads = (
        *("seed", "data", "pretrain"),
        *(
            "model.glancer",
            "model.focuser",
            "model.glance_size",
            "model.glance_resize",
            "model.glance_stride",
            "model.temporal_shift",
            "model.head_dropout",
        ),
    )
    patches = None

    def forward(self, collected: Collected) -> tuple[Tensor, Logs]:
        """Sum of both networks' cross-entropies."""
        settings = self.settings
        assert isinstance(settings, PretrainConfig)
        target = collected["target"]
        losses, logs = [], {}
        for part, logits_BTK in (
            ("glancer", self.fast.glance(collected["glance"]).logits_BTK),
            ("focuser", self.model.focuser.head(self.fast.focus(collected["focus"]))),
        ):
            judged_BTK = logits_BTK.mean(1, keepdim=True) if settings.loss == "video" else logits_BTK
            losses.append(self.judge(judged_BTK, target))
            logs[f"{part}_loss"] = losses[-1]
            logs[f"{part}_accuracy"] = (logits_BTK.mean(1).argmax(1) == target).float().mean() * 100
        return losses[0] + losses[1], logs
