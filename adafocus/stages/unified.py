"""The one stage of Uni-AdaFocus: all parts learn together, frames and boxes without reinforcement (as the reference).

As in the second version every clip is looked at twice, here in the same frames: in the policy's boxes, and in patches
at random. The policies do not learn of either. Which frames to look at is learnt from the glancer's predictions, as
their weights would average them; where and how large from what the glancer's map says of the boxes by itself.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from adafocus.config.schema import UnifiedConfig
from adafocus.data.loader import Batch
from adafocus.models.frame_source import at_places
from adafocus.models.outputs import Glance
from adafocus.models.policies.box_policy import boxes_of
from adafocus.models.policies.frame_policy import choose_places, expected_logits, left_out
from adafocus.models.uni_adafocus import UniAdaFocus
from adafocus.stages.joint import Joint
from adafocus.stages.stage import Collected, Logs

SAMPLES = 128
"""Sets of glances, for each number of them, in the mean over frames that might be drawn."""


class Unified(Joint):
    """Half of four cross-entropies (of classifier and focuser, with the policy's boxes and at random), those of the
    glancer, of the choice of frames and of boxes, and the boxes' regulariser."""

    name = "unified"
    reads: ClassVar[tuple[str, ...]] = (
        *(name for name in Joint.reads if name not in ("joint", "model.policy_hidden")),
        *("unified", "model.temporal_channels", "model.smallest_patch"),
    )

    @property
    def settings(self) -> UnifiedConfig:
        return self.config.unified

    @property
    def uni(self) -> UniAdaFocus:
        """The model."""
        assert isinstance(self.model, UniAdaFocus)
        return self.model

    def states(self, clips: int) -> int:
        """Every glance is one."""
        return clips * self.config.data.num_frames

    def collect(self, batch: Batch) -> Collected:
        """Frames, labels, and what is drawn: random positions, quantiles for frames, and sets of glances."""
        collected = super().collect(batch)
        data, device = self.config.data, batch.glance_BTCHW.device
        rows = self.rows(len(batch.clip_ids))
        sets = (rows, max(data.num_frames // 3, 1), SAMPLES, data.num_frames)
        quantile_BF = self.own_rows(torch.rand(rows, data.num_focus_frames, generator=self.draws))
        draw_BING = self.own_rows(torch.rand(sets, generator=self.draws))
        return collected | {
            "quantiles": quantile_BF.to(device, non_blocking=True),
            "sets": draw_BING.permute(1, 2, 0, 3).to(device, non_blocking=True),
        }

    def random_positions(self, frames_BTCHW: Tensor) -> Tensor:
        """Uniform in [0, 1] for every patch, float32 (B, S, 2)."""
        batch = len(frames_BTCHW)
        positions = torch.rand((self.rows(batch), self.model.actions_per_clip, 2), generator=self.draws)
        return self.own_rows(positions).to(frames_BTCHW.device, non_blocking=True)

    def forward(self, collected: Collected) -> tuple[Tensor, Logs]:
        """The weighted sum of the eight."""
        losses, accuracy = self.losses(collected)
        loss = torch.stack([value * self.weight(name) for name, value in losses.items()]).sum()
        return loss, {**losses, "accuracy": accuracy}

    def weight(self, name: str) -> float:
        """Of a loss in the sum."""
        return 0.5 if name.startswith(("policy_", "random_")) else self.settings.size_weight if name == "size" else 1.0

    def losses(self, collected: Collected) -> tuple[dict[str, Tensor], Tensor]:
        """The eight, by name, and the percentage of clips that are recognised with the policy's boxes."""
        model, data, target = self.uni, self.config.data, collected["target"]
        glance = model.glance(collected["glance"])
        weight_BG = model.weights(glance)
        with torch.no_grad():
            quantile_BF = collected["quantiles"]
            places_BF = choose_places(weight_BG, data.num_candidates, data.num_focus_frames, quantile_BF)
            # Their program asks the policy twice too, and batch norms count it.
            boxes_BS4 = model.boxes_at(model.actions(glance), places_BF)
            frames_BFCHW = model.prepare(at_places(collected["focus"], places_BF))
            sources = {
                "policy": model.cut(frames_BFCHW, boxes_BS4),
                "random": model.cut(frames_BFCHW, self._random_boxes(collected["random"])),
            }
        names = ["policy", "random"] if model.acts_per_frame else ["random", "policy"]  # the reference's order
        seen = model.focus(torch.cat([sources[name] for name in names])).chunk(2)
        losses: dict[str, Tensor] = {}
        accuracy = torch.zeros(())
        for name, focus_BTD in zip(names, seen, strict=True):
            logits_BTK = model.prefixes(glance, focus_BTD)
            losses[f"{name}_loss"] = self.judge(logits_BTK, target)
            losses[f"{name}_focuser_loss"] = self._judge_frames(model.focuser.head(focus_BTD), target)
            if name == "policy":
                accuracy = (logits_BTK[:, -1].argmax(1) == target).float().mean() * 100
        losses["glancer_loss"] = self._judge_frames(glance.logits_BTK, target)
        drawn_BK = self.frames_logits(glance, weight_BG, collected["sets"])
        losses["frames_loss"] = self.judge(drawn_BK[:, None], target)
        action_BS4 = model.actions(glance)
        losses["boxes_loss"] = self.judge(model.judged_map(glance, action_BS4)[:, None], target)
        losses["size"] = (action_BS4[..., 2:] - 1).square().mean()
        return losses, accuracy

    def frames_logits(self, glance: Glance, weight_BG: Tensor, draw_INBG: Tensor) -> Tensor:
        """What the glancer would say of frames drawn by the weights, logits_BK."""
        logits_BGK = glance.logits_BTK if self.model.acts_per_frame else glance.logits_BTK.detach()
        return expected_logits(logits_BGK, weight_BG, self.drawn_before(weight_BG, draw_INBG))

    def drawn_before(self, weight_BG: Tensor, draw_INBG: Tensor) -> Tensor:
        """Sets of glances, bool (I, N, B, G)."""
        return left_out(weight_BG, draw_INBG)

    def _random_boxes(self, position_BS2: Tensor) -> Tensor:
        """Boxes of the patch's own size at positions that are shares of the free range."""
        side, crop = self.config.model.patch_size, self.config.data.crop
        sizes_BS2 = torch.zeros_like(position_BS2)
        return boxes_of(torch.cat([position_BS2, sizes_BS2], -1), crop, side)

    def rate(self, parameter: str) -> float:
        """As in the second version; what judges the boxes of the glancer's map learns as the glancer."""
        return super().rate(parameter.replace("model.policy.judge.", "model.glancer.judge."))
