"""Temporal shift: a frame's features in, the same with an eighth taken from each neighbouring frame out.

Gives an image network a sense of time at no multiply-adds (Temporal Shift Module, Lin et al. 2019, section 4). The
shift sits before the first convolution of every residual block, inside its residual branch, as in the published
networks.

Shapes: N = B*T images (clip by clip), C channels, h w map cells.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import efficientnet, mobilenetv2, mobilenetv3, regnet, resnet


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


FIRST_LAYER: dict[type[nn.Module], str] = {
    resnet.BasicBlock: "conv1",
    resnet.Bottleneck: "conv1",
    mobilenetv2.InvertedResidual: "conv.0.0",
    mobilenetv3.InvertedResidual: "block.0.0",
    efficientnet.MBConv: "block.0.0",
    regnet.ResBottleneckBlock: "f.a.0",
}
"""Residual blocks and the name of their first convolution."""


def add_shift(body: nn.Module, num_frames: int) -> int:
    """Put a shift before the first convolution of every residual block, in place; the number of blocks found.

    Inverted residuals count only where they add their input, as in the published MobileNetV2. A block may also carry
    an attribute `first_layer` that names its own convolution.
    """
    blocks = [module for module in body.modules() if type(module) in FIRST_LAYER or hasattr(module, "first_layer")]
    blocks = [block for block in blocks if getattr(block, "use_res_connect", True)]
    for block in blocks:
        path = FIRST_LAYER.get(type(block)) or str(block.first_layer)
        parent, _, name = path.rpartition(".")
        setattr(block.get_submodule(parent), name, Shifted(block.get_submodule(path), num_frames))
    return len(blocks)
