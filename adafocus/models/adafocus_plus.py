"""AdaFocus+: the same chain, in which the focuser skips frames that are not worth a look. Our own design.

The paper announces such an extension and shows results, but no mechanism was published. Here a gate beside the policy
decides frame by frame. Patches of skipped frames are neither cut nor computed: the focuser gets the others in one
batch. For a skipped frame the classifier gets the glancer's features, where it takes any, and a learnt vector in place
of the focuser's.

Shapes: as `adafocus.models.adafocus`; N frames that are looked at, of all clips.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from adafocus.config.schema import Config
from adafocus.models.adafocus import PARTS as FIRST_PARTS
from adafocus.models.adafocus import AdaFocus, Patches, part_seed
from adafocus.models.crop import crop_patches
from adafocus.models.outputs import Glance, Look, PatchChoice, State
from adafocus.models.policies.gate import Gate
from adafocus.models.policies.policy import ValuedOutput
from preprocessing.schema import UserError

PARTS = ("glancer", "policy", "gate", *FIRST_PARTS[2:])
"""The parts in the order in which they run."""


class AdaFocusPlus(AdaFocus):
    """The first version's four parts, and a gate."""

    gate: Gate

    def __init__(self, config: Config, num_classes: int, *, pretrained: bool = True) -> None:
        """As `AdaFocus`. Raises UserError also for a model that sees the clip as a whole."""
        super().__init__(config, num_classes, pretrained=pretrained)
        if not self.is_causal:
            raise UserError(
                "method adafocus-plus skips frames one by one: set data.focus_frames=shared, model.action_per=frame "
                "and model.temporal_shift=false"
            )
        with part_seed(int(torch.randint(2**62, (), device="cpu")), "gate"):
            self.gate = Gate(config.model.policy_hidden, self.focuser.num_features, config.skip.budget)

    @property
    def planned_looks(self) -> float:
        """Share of the policy's patches that the focuser is meant to look at, on average."""
        return self.config.skip.budget

    @property
    def export_obstacle(self) -> str:
        """Patches are of a number that differs from clip to clip."""
        return "its gate decides how many patches the focuser gets"

    def choose(
        self,
        glance: Glance,
        patches: Patches | Tensor = "policy",
        *,
        greedy: bool = True,
        generator: torch.Generator | None = None,
        state: State | None = None,
    ) -> PatchChoice:
        """As the first version's, and which frames are looked at where the policy chooses; else all are."""
        choice = super().choose(glance, patches, greedy=greedy, generator=generator, state=state)
        if choice.policy is None:
            return choice
        looks_BT, past_1B3 = self.gate.decide(policy_states(choice), state.gate if state else None)
        if looks_BT.is_meta:
            return choice  # where costs are counted, all frames are looked at
        return replace(choice, looks_BT=looks_BT, gate_1B3=past_1B3)

    def counted_modules(self, part: str) -> tuple[str, ...]:
        """Names of the modules that compute a part's share of the prediction."""
        return ("gate.state", "gate.past", "gate.actor") if part == "gate" else super().counted_modules(part)

    def with_gate(self, gate: Gate) -> AdaFocusPlus:
        """The same model with another gate; all else is shared."""
        model = copy.copy(self)
        model._modules = {**self._modules, "gate": gate}
        return model

    def crop_chosen(self, frames_BTCHW: Tensor, choice: PatchChoice) -> Tensor:
        """The patches of frames that are looked at, (N, 1, C, P, P), clip by clip in the order of frames."""
        if choice.looks_BT is None:
            return super().crop_chosen(frames_BTCHW, choice)
        # Their number decides the batch's size: on a GPU this waits for the gate.
        looked_N = choice.looks_BT.flatten().nonzero()[:, 0]
        corners_N2 = choice.corners_BS2.flatten(0, 1)[looked_N]
        size = self.config.model.patch_size
        return crop_patches(frames_BTCHW.flatten(0, 1), corners_N2, size, looked_N).unsqueeze(1)

    def focus_chosen(self, seen: Look) -> Tensor:
        """The focuser's features, and the learnt vector for frames that are skipped: feature_BTD."""
        looks_BT = seen.choice.looks_BT
        if looks_BT is None:
            return super().focus_chosen(seen)
        return self.fill(self.focus_looked(seen.patches_BTCPP), looks_BT)

    def focus_looked(self, patches_N1CPP: Tensor) -> Tensor:
        """The focuser's feature_ND of frames that are looked at; there may be none."""
        if not len(patches_N1CPP):
            return self.gate.blank.new_zeros(0, self.focuser.num_features)
        return self.focus(patches_N1CPP)[:, 0]

    def fill(self, feature_ND: Tensor, looks_BT: Tensor) -> Tensor:
        """Features of the frames looked at, in their places among the learnt vector: feature_BTD."""
        blank_BTD = self.gate.blank.expand(*looks_BT.shape, -1)
        return blank_BTD.masked_scatter(looks_BT.unsqueeze(-1), feature_ND.to(blank_BTD.dtype))

    def gains(self, glance: Glance, focus_BTD: Tensor, looks_BT: Tensor, target_B: Tensor) -> Tensor:
        """By how much looking at each frame, rather than skipping it, raises the clip's logarithm of the probability of
        its class, all other decisions as they are: float32 (B, T). `focus_BTD` is of all frames, as if none were
        skipped; all T + 1 predictions are one pass of the classifier."""
        frames = looks_BT.shape[1]
        one_TT = torch.eye(frames, dtype=torch.bool, device=looks_BT.device)
        ways_BRT1 = torch.cat([looks_BT[:, None], looks_BT[:, None] ^ one_TT], 1).unsqueeze(-1)  # as is, one changed
        looked_BTD = self.features(glance, focus_BTD)
        skipped_BTD = self.features(glance, self.gate.blank.expand_as(focus_BTD))
        feature_BRTD = torch.where(ways_BRT1, looked_BTD[:, None], skipped_BTD[:, None])
        logits_NK = self.classifier(feature_BRTD.flatten(0, 1))[0][:, -1]
        logits_BRK = logits_NK.unflatten(0, ways_BRT1.shape[:2])
        if self.averages_glances:
            logits_BRK = logits_BRK + self.clip_glance(glance)
        index_BR1 = target_B.view(-1, 1, 1).expand(-1, frames + 1, 1)
        sure_BR = logits_BRK.float().log_softmax(-1).gather(-1, index_BR1).squeeze(-1)
        return (sure_BR[:, :1] - sure_BR[:, 1:]) * (2 * looks_BT.float() - 1)


def policy_states(choice: PatchChoice) -> Tensor:
    """The policy's recurrent state after each frame, which the gate sees: (B, T, D)."""
    assert isinstance(choice.policy, ValuedOutput)
    return choice.policy.state_BSD
