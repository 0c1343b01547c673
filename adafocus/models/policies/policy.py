"""The policy pi: the glancer's maps in, for each step a distribution over patch corners and a value out.

Its state depends on the maps alone, never on its own actions: a whole clip is one recurrent pass (as the reference).

Shapes: B clips, S steps (T where it acts for every frame, 1 where once for the clip), D channels of the map, h w its
cells, A grid actions.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from adafocus.config.schema import ModelConfig
from adafocus.models.crop import cell_corners, scale_corners


class Actions(Protocol):
    """What a policy would do."""

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Random actions (on the generator's device, then moved)."""
        ...

    def mode(self) -> Tensor:
        """The most likely actions."""
        ...


class RandomActions(Actions, Protocol):
    """A distribution over actions: all that differs between grid and Gaussian."""

    def take(self, clips_N: Tensor) -> RandomActions:
        """Those of the clips with these numbers."""
        ...

    def log_prob(self, action: Tensor) -> Tensor:
        """Logarithm of the probability (density), float32 (B, S)."""
        ...

    def entropy(self) -> Tensor:
        """In nats, float32 (B, S)."""
        ...


@dataclass(frozen=True, slots=True)
class GridActions:
    """Categorical over the corners of a grid; actions are int64 (B, S)."""

    log_probs_BSA: Tensor

    def take(self, clips_N: Tensor) -> GridActions:
        """Those of the clips with these numbers."""
        return GridActions(self.log_probs_BSA[clips_N])

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Gumbel-max: no normalisation check, hence nothing read back from the device."""
        source = self.log_probs_BSA
        device = source.device if generator is None else generator.device
        noise = torch.empty(source.shape, device=device).exponential_(generator=generator)
        return (source - noise.to(source.device, non_blocking=True).log()).argmax(-1)

    def mode(self) -> Tensor:
        """(B, S)."""
        return self.log_probs_BSA.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """(B, S)."""
        return self.log_probs_BSA.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """(B, S)."""
        return -(self.log_probs_BSA.exp() * self.log_probs_BSA).sum(-1)


@dataclass(frozen=True, slots=True)
class GaussianActions:
    """Gaussian over positions in [0, 1]^2 with a fixed deviation, samples clipped; actions are float32 (B, S, 2).

    As in the reference, a clipped sample's density is that of the Gaussian at the clipped place, so it is biased
    at the borders.
    """

    mean_BS2: Tensor
    std: float

    def take(self, clips_N: Tensor) -> GaussianActions:
        """Those of the clips with these numbers."""
        return GaussianActions(self.mean_BS2[clips_N], self.std)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """(B, S, 2), without gradient: the score-function estimator must not see how the sample came about."""
        device = self.mean_BS2.device if generator is None else generator.device
        noise = torch.randn(self.mean_BS2.shape, device=device, generator=generator)
        noise = noise.to(self.mean_BS2.device, non_blocking=True)
        return (self.mean_BS2.detach() + self.std * noise).clamp(0, 1)

    def mode(self) -> Tensor:
        """(B, S, 2)."""
        return self.mean_BS2

    def log_prob(self, action: Tensor) -> Tensor:
        """(B, S)."""
        scaled = (action - self.mean_BS2) / self.std
        return -0.5 * scaled.square().sum(-1) - 2 * math.log(self.std) - math.log(2 * math.pi)

    def entropy(self) -> Tensor:
        """(B, S), the same everywhere."""
        entropy = 1 + math.log(2 * math.pi) + 2 * math.log(self.std)
        return torch.full_like(self.mean_BS2[..., 0], entropy)


@dataclass(frozen=True, slots=True)
class PolicyOutput:
    """What a policy says of each step."""

    actions: Actions
    hidden_1BD: Tensor
    """The recurrent state after the last step."""


@dataclass(frozen=True, slots=True)
class ValuedOutput(PolicyOutput):
    """The same of a policy that learns by reinforcement."""

    actions: RandomActions
    value_BS: Tensor
    """The critic's estimate of the return."""
    state_BSD: Tensor
    """The recurrent state after each step."""


class PatchPolicy(nn.Module):
    """What chooses patches: maps in, a distribution over actions for each step out."""

    @abstractmethod
    def forward(self, map_BSDhw: Tensor, hidden_1BD: Tensor | None = None) -> PolicyOutput:
        """One pass over all steps, from a recurrent state (None: a clip's start)."""

    @abstractmethod
    def corners(self, action: Tensor, frame_size: int) -> Tensor:
        """Actions -> corners (B, S, 2) of patches in a square frame, in pixels."""


class Policy(PatchPolicy):
    """Encoder of the map, GRU, actor and critic.

    `num_channels` and `map_size` (h, w) describe the maps. With `policy_norm` the encoder has batch norm.
    """

    def __init__(self, config: ModelConfig, num_channels: int, map_size: tuple[int, int]) -> None:
        super().__init__()
        width, kept = config.policy_hidden, config.policy_channels
        self.config = config
        self.encoder = nn.Sequential(
            nn.Conv2d(num_channels, kept, 1, bias=False),
            *([nn.BatchNorm2d(kept)] if config.policy_norm else []),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(kept * map_size[0] * map_size[1], width),
            *([nn.BatchNorm1d(width)] if config.policy_norm else []),
            nn.ReLU(inplace=True),
        )
        self.gru = nn.GRU(width, width, batch_first=True)
        self.actor = nn.Linear(width, config.grid_size**2 if config.action == "grid" else 2)
        self.critic = nn.Linear(width, 1)

    def forward(self, map_BSDhw: Tensor, hidden_1BD: Tensor | None = None) -> ValuedOutput:
        """One recurrent pass over all steps, from a hidden state (None: a clip's start)."""
        state = self.encoder(map_BSDhw.flatten(0, 1)).unflatten(0, map_BSDhw.shape[:2])
        hidden_BSD, hidden_1BD = self.gru(state, hidden_1BD)
        value_BS = self.critic(hidden_BSD).squeeze(-1).float()
        raw = self.actor(hidden_BSD).float()
        actions: RandomActions = (
            GridActions(raw.log_softmax(-1))
            if self.config.action == "grid"
            else GaussianActions(raw.sigmoid(), self.config.action_std)
        )
        return ValuedOutput(actions, hidden_1BD, value_BS, hidden_BSD)

    def corners(self, action: Tensor, frame_size: int) -> Tensor:
        """Actions -> corners int64 (B, S, 2) of patches in a square frame."""
        if self.config.action == "grid":
            return cell_corners(action, self.config.grid_size, frame_size, self.config.patch_size)
        return scale_corners(action, frame_size, self.config.patch_size)
