"""The one stage of AdaFocusV2: all parts learn together, without reinforcement (as the reference).

Every clip is looked at twice: where the policy points, and at random, so that the focuser sees more than what the
policy has settled on. Classifier and both networks' own last layers are judged after each.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from adafocus.config.schema import JointConfig
from adafocus.data.loader import Batch
from adafocus.models.adafocus import PARTS, Patches
from adafocus.stages.stage import Collected, Logs, Stage
from preprocessing.schema import UserError


class Joint(Stage):
    """Half the sum of six cross-entropies: of the classifier, the glancer and the focuser, each with policy patches and
    with random ones."""

    name = "joint"
    trains = PARTS
    reads: ClassVar[tuple[str, ...]] = (
        *("seed", "data", "joint"),
        *("model.glancer", "model.focuser", "model.glance_size", "model.glance_resize", "model.glance_stride"),
        *("model.temporal_shift", "model.head_dropout", "model.patch_size", "model.action_per"),
        *("model.policy_channels", "model.policy_hidden", "model.classifier_hidden", "model.dropout"),
        "model.reuse_glance",
    )
    patches: ClassVar[Patches | None] = "policy"
    heads_learn = True

    @property
    def settings(self) -> JointConfig:
        return self.config.joint

    def check_batch(self, clips: int) -> None:
        """Batch norms of policy and classifier take their statistics from one worker's micro-batch: of one state there
        are none."""
        if self.states(clips) < 2:
            raise UserError(
                f"the policy's batch norms need two clips in a micro-batch of one worker, and {self.name}.batch_size="
                f"{self.settings.batch_size} with {self.name}.accumulate={self.settings.accumulate} leaves one: raise "
                "the one or lower the other"
            )

    def states(self, clips: int) -> int:
        """Of how many states the policy's batch norms take their statistics."""
        return clips * self.config.data.num_frames // self.model.maps_per_state

    def collect(self, batch: Batch) -> Collected:
        """Frames, labels, and random positions."""
        collected = super().collect(batch)
        return collected | {"random": self.random_positions(collected["glance"])}

    def random_positions(self, frames_BTCHW: Tensor) -> Tensor:
        """Uniform in [0, 1] for every action in clips of these glance frames, float32 (B, S, 2)."""
        batch, steps = len(frames_BTCHW), frames_BTCHW.shape[1] // self.model.maps_per_state
        positions = torch.rand((self.rows(batch), steps, 2), generator=self.draws)
        return self.own_rows(positions).to(frames_BTCHW.device, non_blocking=True)

    def forward(self, collected: Collected) -> tuple[Tensor, Logs]:
        """Every prediction is judged by the clip's class: of each frame where the policy acts per frame, else of the
        clip."""
        losses, accuracy = self.losses(collected)
        return torch.stack([*losses.values()]).sum() / 2, {**losses, "accuracy": accuracy}

    def losses(self, collected: Collected) -> tuple[dict[str, Tensor], Tensor]:
        """The six, by name, and the percentage of clips that are recognised with policy patches."""
        model, target, side = self.model, collected["target"], self.config.data.crop
        glance = model.glance(collected["glance"])
        random_BS2 = model.policy.corners(collected["random"], side)
        sources: list[tuple[str, Patches | Tensor]] = [("policy", "policy"), ("random", random_BS2)]
        if not model.acts_per_frame:
            sources.reverse()  # batch norms remember the later pass better: keep the reference's order
        parts: dict[str, Tensor] = {}
        accuracy = torch.zeros(())
        for name, source in sources:
            corners_BS2 = model.choose(glance, source).corners_BS2
            focus_BTD = model.focus(model.crop(collected["focus"], corners_BS2))
            logits_BTK = model.classify(glance, focus_BTD)
            parts[f"{name}_loss"] = self.judge(model.decisions(logits_BTK), target)
            parts[f"{name}_glancer_loss"] = self._judge_frames(glance.logits_BTK, target)
            parts[f"{name}_focuser_loss"] = self._judge_frames(model.focuser.head(focus_BTD), target)
            if name == "policy":
                accuracy = (logits_BTK[:, -1].argmax(1) == target).float().mean() * 100
        return parts, accuracy

    def _judge_frames(self, logits_BTK: Tensor, target_B: Tensor) -> Tensor:
        """Of an auxiliary layer: frame by frame, or their mean where there is one action for the clip."""
        return self.judge(logits_BTK if self.model.acts_per_frame else logits_BTK.mean(1, keepdim=True), target_B)

    def rate(self, parameter: str) -> float:
        """That of the part which the parameter belongs to; of the classifier's two heads, each learns as its network
        does."""
        part = parameter.removeprefix("model.").split(".", 1)[0]
        if part == "classifier" and not self.model.acts_per_frame:
            part = "glancer" if parameter.startswith("model.classifier.glance.") else "focuser"
        scale: float = getattr(self.settings, f"{part}_lr_scale")
        return self.settings.lr * scale
