"""Temporal shift: a frame's features in, the same with an eighth taken from each neighbouring frame out.

Gives an image network a sense of time at no multiply-adds (Temporal Shift Module, Lin et al. 2019, section 4). The
shift sits before the first convolution of every residual block, inside its residual branch, as in the published
networks.

Shapes: N = B*T images (clip by clip), C channels, h w map cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def temporal_shift(map_NChw: Tensor, num_frames: int, *, divisor: int = 8) -> Tensor:
    """Shift 1/divisor of the channels one frame back and as many one frame on; zeros enter at the clip's ends.

    N has to be a multiple of `num_frames`. Keeps dtype and memory format.
    """
    map_BTChw = map_NChw.unflatten(0, (-1, num_frames))
    fold = map_NChw.shape[1] // divisor
    out_BTChw = torch.empty_like(map_BTChw)
    out_BTChw[:, -1, :fold] = 0
    out_BTChw[:, :-1, :fold] = map_BTChw[:, 1:, :fold]  # from the frame after
    out_BTChw[:, 0, fold : 2 * fold] = 0
    out_BTChw[:, 1:, fold : 2 * fold] = map_BTChw[:, :-1, fold : 2 * fold]  # from the frame before
    out_BTChw[:, :, 2 * fold :] = map_BTChw[:, :, 2 * fold :]
    return out_BTChw.flatten(0, 1)


class Shifted(nn.Module):
    """A layer whose input is shifted in time first. `num_frames` is the T of the clips that it will see."""

    def __init__(self, layer: nn.Module, num_frames: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_frames = num_frames

    def forward(self, map_NChw: Tensor) -> Tensor:
        """Of the layer, on shifted input."""
        return self.layer(temporal_shift(map_NChw, self.num_frames))


def add_shift(sites: Sequence[tuple[nn.Module, str]], num_frames: int) -> int:
    """Put a shift before the named layer of each block, in place; the number of blocks."""
    for block, path in sites:
        parent, _, name = path.rpartition(".")
        setattr(block.get_submodule(parent), name, Shifted(block.get_submodule(path), num_frames))
    return len(sites)
