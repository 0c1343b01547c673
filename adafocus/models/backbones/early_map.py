"""A network up to a stride: its last map that has a cell for so many pixels, instead of the coarse one at its end.

Where something is can be told from it more finely, and for less. Weights of the layers behind it are of no use.

Shapes: N images, C colours, H W pixels, D features, h w map cells.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from adafocus.models.backbones.backbone import Backbone, MeanPool
from adafocus.models.backbones.timm_networks import TimmBackbone, TimmBody
from preprocessing.schema import UserError

SIDE = 64
"""Of the image by which maps are measured, in pixels."""


class EarlyBody(TimmBody):
    """A network of timm without its late layers."""

    def __init__(self, net: Any, channels_last: bool) -> None:
        super().__init__(net)
        self.channels_last = channels_last

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Normalised images -> map_NDhw, wherever the network has its channels."""
        features = super().forward(images_NCHW)
        return features.permute(0, 3, 1, 2) if self.channels_last else features


def end_at(stride: int, name: str, network: Backbone, num_classes: int) -> Backbone:
    """The network up to its last map of this stride, in pixels, with a mean over the map and a fresh last layer.

    Raises UserError, with the strides that there are, if it has no such map.
    """
    was_training = network.training
    find = _of_timm if isinstance(network, TimmBackbone) else _of_layers
    body, strides = find(network.eval(), stride)
    if body is None:
        raise UserError(
            f"model.glance_stride is {stride}, but "
            + (
                f"maps of {name} have strides of {', '.join(map(str, strides))}: set one of them, or 0 for the whole "
                "network"
                if strides
                else f"{name} has one map only: set model.glance_stride=0"
            )
        )
    with torch.no_grad():
        channels = body(_image(body)).shape[1]
    last = nn.Sequential(nn.Dropout(0.0), nn.Linear(channels, num_classes))
    early = network.with_parts(body=body, pooling=MeanPool(), last=last)
    early.num_channels = early.num_features = channels
    if isinstance(early, TimmBackbone):
        early.form = "map"
    return early.train(was_training)


def _of_timm(network: Any, stride: int) -> tuple[nn.Module | None, list[int]]:
    """The body that ends there, if it can, and all strides."""
    net = network.body.net
    if network.step > 1 or not hasattr(net, "prune_intermediate_layers"):
        return None, []
    stages = getattr(net, "feature_info", [])
    strides = [stage["reduction"] for stage in getattr(stages, "get_dicts", lambda: stages)()]
    if stride not in strides:
        return None, sorted(set(strides))
    last = max(number for number, each in enumerate(strides) if each == stride)
    net.prune_intermediate_layers([last], prune_norm=True, prune_head=True)
    return EarlyBody(net, network.form == "channels_last"), strides


def _of_layers(network: Backbone, stride: int) -> tuple[nn.Module | None, list[int]]:
    """Likewise of a network whose body is one row of layers."""
    strides: set[int] = set()
    with torch.no_grad():
        layers = _first_layers(network.body, _image(network.body), stride, strides)
    return layers, sorted(strides)


def _first_layers(body: nn.Module, features: Tensor, stride: int, strides: set[int]) -> nn.Sequential | None:
    """Layers of `body`, which takes these features, up to the last one whose map has this stride; None if none has.

    `strides` collects all that there are.
    """
    kept: list[tuple[str, nn.Module]] = []
    found: list[tuple[str, nn.Module]] | None = None
    for name, layer in body.named_children():
        before, features = features, layer(features)
        here = SIDE // features.shape[-1]
        strides.add(here)
        if here > stride and found is None and type(layer) is nn.Sequential:
            inner = _first_layers(layer, before, stride, strides)
            found = None if inner is None else [*kept, (name, inner)]
        kept.append((name, layer))
        if here == stride:
            found = list(kept)
    return None if found is None else nn.Sequential(OrderedDict(found))


def _image(module: nn.Module) -> Tensor:
    return torch.zeros(1, 3, SIDE, SIDE, device=next(module.parameters()).device)
