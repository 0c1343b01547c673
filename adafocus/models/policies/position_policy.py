"""The policies of AdaFocusV2: the glancer's maps in, continuous patch positions with a gradient out.

A position is a share of the free range H - P per axis, in [0, 1]. What is learnt reaches it through the crop alone
(`crop_between`), so there is no distribution, no critic and no reward.

Shapes: B clips, S steps (T where it acts for every frame, 1 where once for the clip), D channels of the map, h w its
cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adafocus.config.schema import ModelConfig
from adafocus.models.crop import check_sizes
from adafocus.models.policies.policy import PatchPolicy, PolicyOutput


@dataclass(frozen=True, slots=True)
class Positions:
    """Actions that are certain: positions (row, column) in [0, 1], float32 (B, S, 2)."""

    position_BS2: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """The positions: nothing is drawn."""
        return self.position_BS2

    def mode(self) -> Tensor:
        """The positions."""
        return self.position_BS2


class PositionPolicy(PatchPolicy):
    """What both have in common: from a position to a corner."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def corners(self, action: Tensor, frame_size: int) -> Tensor:
        """Positions -> corners float32 (B, S, 2), with fractions of pixels."""
        check_sizes(frame_size, self.config.patch_size)
        return action.float() * (frame_size - self.config.patch_size)


class RecurrentPositions(PositionPolicy):
    """A position for every frame: encoder of the map, GRU, one linear layer (the reference's PolicySTN)."""

    def __init__(self, config: ModelConfig, num_channels: int, map_size: tuple[int, int]) -> None:
        super().__init__(config)
        width, kept = config.policy_hidden, config.policy_channels
        self.encoder = nn.Sequential(*_encoder(num_channels, kept, map_size, width))
        self.gru = nn.GRU(width, width, batch_first=True)
        self.actor = nn.Linear(width, 2)

    def forward(self, map_BSDhw: Tensor, hidden_1BD: Tensor | None = None) -> PolicyOutput:
        """One recurrent pass over all steps, from a hidden state (None: a clip's start)."""
        state = self.encoder(map_BSDhw.flatten(0, 1)).unflatten(0, map_BSDhw.shape[:2])
        hidden_BSD, hidden_1BD = self.gru(state, hidden_1BD)
        return PolicyOutput(Positions(self.actor(hidden_BSD).float().sigmoid()), hidden_1BD)


class ClipPosition(PositionPolicy):
    """One position for the whole clip, from all its maps at once; no recurrent state (the reference's for
    Something-Something). The second hidden layer is half as wide as the first."""

    def __init__(self, config: ModelConfig, num_channels: int, map_size: tuple[int, int]) -> None:
        super().__init__(config)
        width = config.policy_hidden
        self.encoder = nn.Sequential(
            *_encoder(num_channels, config.policy_channels, map_size, width),
            nn.Linear(width, width // 2),
            nn.BatchNorm1d(width // 2),
            nn.Tanh(),
        )
        self.actor = nn.Linear(width // 2, 2)

    def forward(self, map_BSDhw: Tensor, hidden_1BD: Tensor | None = None) -> PolicyOutput:
        """The state passes through unchanged; at a clip's start it is zeros."""
        hidden_BSD = self.encoder(map_BSDhw.flatten(0, 1)).unflatten(0, map_BSDhw.shape[:2])
        if hidden_1BD is None:
            hidden_1BD = hidden_BSD.new_zeros(1, len(hidden_BSD), self.config.policy_hidden)
        return PolicyOutput(Positions(self.actor(hidden_BSD).float().sigmoid()), hidden_1BD)


def _encoder(num_channels: int, kept: int, map_size: tuple[int, int], width: int) -> list[nn.Module]:
    return [
        nn.Conv2d(num_channels, kept, 1, bias=False),
        nn.BatchNorm2d(kept),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(kept * map_size[0] * map_size[1], width),
        nn.BatchNorm1d(width),
        nn.Tanh(),
    ]
