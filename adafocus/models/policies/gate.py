"""The gate of AdaFocus+: says of each frame whether the focuser looks at it. Our own design; none was published.

It sees the policy's state and its own decisions so far, never what the focuser saw: so all frames of a batch are
decided before the focuser gets any. That it knows its decisions matters: else whole clips are skipped.

Shapes: B clips, T frames, D width of the policy's state or features of the focuser.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 64
"""Of the hidden layer."""


def log_prob(score_BT: Tensor, looks_BT: Tensor) -> Tensor:
    """Logarithm of the probability of these decisions, float32 (B, T)."""
    return F.logsigmoid(torch.where(looks_BT, score_BT, -score_BT))


def entropy(score_BT: Tensor) -> Tensor:
    """Of random decisions, in nats, float32 (B, T)."""
    return F.binary_cross_entropy_with_logits(score_BT, score_BT.sigmoid(), reduction="none")


class Gate(nn.Module):
    """A small network, the threshold above which the focuser looks, and what stands in for its features where it does
    not."""

    threshold: Tensor
    """Of the score. Before training it lies below all scores: every frame is looked at."""
    price: Tensor
    """What a look has to bring, in units of what looks bring. It follows the share of frames looked at, so that this
    stays at the budget."""

    def __init__(self, policy_hidden: int, num_features: int, budget: float) -> None:
        """`budget` is the share of frames looked at that the first random decisions keep to."""
        super().__init__()
        self.state = nn.Linear(policy_hidden, WIDTH)
        self.past = nn.Linear(3, WIDTH, bias=False)
        self.actor = nn.Linear(WIDTH, 1)
        nn.init.zeros_(self.actor.weight)
        nn.init.constant_(self.actor.bias, math.log(budget) - math.log(max(1 - budget, 1e-3)))
        self.blank = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("threshold", torch.tensor(torch.finfo(torch.float32).min))
        self.register_buffer("price", torch.tensor(0.0))

    def forward(self, state_BTD: Tensor, looks_BT: Tensor) -> Tensor:
        """The score of every frame of whole clips, in one pass, after these decisions about the frames before it: the
        logarithm of the odds of looking, float32 (B, T)."""
        looked_BT = looks_BT.float()
        before_BT = F.pad(looked_BT[:, :-1], (1, 0))
        frames_T = torch.arange(looks_BT.shape[1], device=looks_BT.device).float()
        past_BT3 = torch.stack([before_BT.cumsum(1), frames_T.expand_as(before_BT), before_BT], -1)
        return self._score(self.state(state_BTD), past_BT3)

    def decide(
        self,
        state_BTD: Tensor,
        past_1B3: Tensor | None = None,
        noise_BT: Tensor | None = None,
        threshold: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Which frames are looked at, bool (B, T), and what the next ones have to know of it, (1, B, 3).

        By the gate's threshold or another one, or at random by noise that is uniform in [0, 1). `past_1B3` is of the
        clip's earlier frames.
        """
        return self.decide_from(self.state(state_BTD), past_1B3, noise_BT, threshold)

    def decide_from(
        self,
        width_BTD: Tensor,
        past_1B3: Tensor | None = None,
        noise_BT: Tensor | None = None,
        threshold: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As `decide`, from what the first layer makes of the states, which is a sixteenth of their size."""
        least = self.threshold if threshold is None else threshold
        past_B3 = width_BTD.new_zeros(len(width_BTD), 3) if past_1B3 is None else past_1B3[0]
        looks = []
        for step, width_BD in enumerate(width_BTD.unbind(1)):  # frame by frame: a decision depends on those before it
            score_B = self._score(width_BD, past_B3)
            look_B = score_B >= least if noise_BT is None else noise_BT[:, step] < score_B.sigmoid()
            looks.append(look_B)
            past_B3 = self.remember(past_B3, look_B)
        return torch.stack(looks, 1), past_B3[None]

    @staticmethod
    def remember(past_B3: Tensor, look_B: Tensor) -> Tensor:
        """What is known of the past after one more frame: frames looked at, frames, and was it looked at?"""
        looked_B = look_B.to(past_B3.dtype)
        return torch.stack([past_B3[:, 0] + looked_B, past_B3[:, 1] + 1, looked_B], -1)

    def _score(self, width: Tensor, past: Tensor) -> Tensor:
        """Scores from the hidden layer's share of the policy's state, and the past."""
        looked, frames, last = past.unbind(-1)
        history = torch.stack([(looked == 0).to(past.dtype), looked / frames.clamp(min=1), last], -1)
        return self.actor((width + self.past(history)).relu()).squeeze(-1).float()

    def opened(self) -> Gate:
        """A gate with the same weights that lets every frame be looked at."""
        gate = copy.copy(self)
        gate._buffers = self._buffers | {"threshold": torch.full_like(self.threshold, torch.finfo(torch.float32).min)}
        return gate


class RandomGate(Gate):
    """Looks at frames at random, each with the same chance: what skipping has to beat."""

    def __init__(self, gate: Gate, share: float, generator: torch.Generator) -> None:
        """`share` is the chance; numbers come from the generator's device, then move."""
        nn.Module.__init__(self)
        self.blank = gate.blank
        self.share, self.generator = share, generator

    def decide(
        self,
        state_BTD: Tensor,
        past_1B3: Tensor | None = None,
        noise_BT: Tensor | None = None,
        threshold: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As a gate that has learnt."""
        noise_BT = torch.rand(state_BTD.shape[:2], generator=self.generator, device=self.generator.device)
        return noise_BT.to(state_BTD.device, non_blocking=True) < self.share, state_BTD.new_zeros(1, len(state_BTD), 3)
