"""Where a model that may stop early gets its frames from: all at once, or fetched when an exit needs them.

Shapes: B clips, t frames of some exits, N candidate frames, F chosen ones, C colours, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class FrameSource(Protocol):
    """Frames of clips, uint8 (B, t, C, H, W)."""

    def glances(self, places: range) -> Tensor:
        """Those that the glancer sees, by their places in its order."""

    def looks(self, places_BF: Tensor) -> Tensor:
        """Of each clip's candidates, those at these places."""


@dataclass(frozen=True, slots=True)
class TensorFrames:
    """Frames that are all there, of a batch or of some of its clips."""

    glance_BTCHW: Tensor
    focus_BTCHW: Tensor
    rows_L: Tensor | None = None
    """Numbers of the clips; None: all."""

    def glances(self, places: range) -> Tensor:
        """A part of the glancer's frames."""
        rows = slice(None) if self.rows_L is None else self.rows_L
        return self.glance_BTCHW[rows, places.start : places.stop]

    def looks(self, places_BF: Tensor) -> Tensor:
        """Of each clip's candidates, those at these places."""
        if self.rows_L is None:
            return at_places(self.focus_BTCHW, places_BF)
        return self.focus_BTCHW[self.rows_L[:, None], places_BF]


def at_places(values_BN: Tensor, places_BF: Tensor) -> Tensor:
    """Of each clip's rows (B, N, ...) those at its places: (B, F, ...)."""
    rows_B1 = torch.arange(len(values_BN), device=values_BN.device)[:, None]
    return values_BN[rows_B1, places_BF]
