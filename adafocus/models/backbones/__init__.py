"""Image networks behind one interface (`Backbone`), by name: torchvision's, timm's, and small ones for a CPU.

A new backbone is one builder in `BACKBONES`; only networks are taken whose parts together compute the same as the
whole.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from adafocus.models.backbones import timm_networks, torchvision_networks
from adafocus.models.backbones.backbone import Backbone
from adafocus.models.backbones.early_map import end_at
from adafocus.models.backbones.tiny import Tiny
from adafocus.models.backbones.torchvision_networks import TORCHVISION
from adafocus.models.backbones.weights import State, describe, fill, read_weights
from adafocus.models.shift import add_shift
from preprocessing.schema import UserError

__all__ = ["BACKBONES", "Backbone", "build_backbone", "describe", "read_weights"]

Builder = Callable[[int], nn.Module]
"""Number of classes -> a whole network with torchvision's parameter names and random weights."""

BACKBONES: dict[str, Builder] = {
    "tiny": partial(Tiny, strides=(2, 2, 2, 1)),
    "tiny_glance": partial(Tiny, strides=(2, 2, 1, 1)),
    **{name: partial(torchvision_networks.build, name) for name in TORCHVISION},
}
"""All but timm's, which are asked for as timm/NAME."""


def build_backbone(
    name: str,
    num_classes: int,
    weights: str = "none",
    *,
    dropout: float | None = None,
    shift_frames: int | None = None,
    stride: int = 0,
    setting: str = "weights",
) -> Backbone:
    """A backbone from the table, or timm/NAME, with its initial weights.

    `weights`: `imagenet` (torchvision's first published weights, those of the paper's time, or timm's), `none`, or a
    file with the provider's parameter names (state dict or safetensors). `dropout` replaces that of the last layers,
    `shift_frames` adds temporal shift for clips of so many frames, `stride` ends the network at its last map of this
    stride, in pixels (0: not before its end). `setting` is the name of the one that chose the
    weights, for messages. Raises UserError for an unknown name, for a network that cannot be taken apart, cannot
    shift or has no such map, and for weights that cannot be fetched or do not fit.
    """
    is_timm = name.startswith(timm_networks.PREFIX)
    if not is_timm and name not in BACKBONES:
        raise UserError(f"unknown backbone {name!r}; there are {', '.join(BACKBONES)}, and timm's as timm/NAME")
    net = timm_networks.build(name, num_classes) if is_timm else BACKBONES[name](num_classes)
    if weights != "none":
        state = _imagenet(name, setting) if weights == "imagenet" else read_weights(Path(weights))
        fill(net, state, f"{name} from {weights}")
    backbone = take_apart(name, net)
    if stride:
        backbone = end_at(stride, name, backbone, num_classes)
    if dropout is not None:
        backbone.set_dropout(dropout)
    if shift_frames is not None and not add_shift(backbone.shift_sites(), shift_frames):
        raise UserError(
            f"{name} has no residual convolutions before which features could be shifted in time: set "
            "model.temporal_shift=false, or take another network"
        )
    return backbone


def take_apart(name: str, net: nn.Module) -> Backbone:
    """The parts of a whole network.

    Raises UserError unless they give the logits of the whole: a network that does more between them would be another
    one in parts, and its weights worthless.
    """
    provider = timm_networks if name.startswith(timm_networks.PREFIX) else torchvision_networks
    side = timm_networks.probe_side(net) if provider is timm_networks else 64
    image_1CHW = torch.linspace(-2, 2, 3 * side * side, device=next(net.parameters()).device).view(1, 3, side, side)
    if image_1CHW.is_meta:  # where nothing is computed, but counted
        return provider.take_apart(name, net)
    was_training = net.training
    net.eval()
    try:
        with torch.no_grad():
            wanted = net(image_1CHW)
            backbone = provider.take_apart(name, net).eval()
            found = backbone.head(backbone.pool(backbone.body(image_1CHW)))
        agree = torch.allclose(found, wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item())
    except UserError:
        raise
    except Exception as error:  # of whatever kind a network raises for an input of another shape
        raise UserError(f"{name} cannot be a backbone, its parts do not fit: {repr(error).splitlines()[0]}") from error
    if not agree:
        raise UserError(f"{name} cannot be a backbone: its parts do not give the whole network's logits")
    return backbone.train(was_training)


def _imagenet(name: str, setting: str) -> State:
    ways = f"give --set {setting}=FILE, a file with {{}}'s parameter names, or --set {setting}=none"
    if name.startswith(timm_networks.PREFIX):
        return timm_networks.published_weights(name, ways.format("timm"))
    ways = ways.format("torchvision")
    if name not in TORCHVISION:
        raise UserError(f"there are no published ImageNet weights for {name!r}: {ways}")
    return torchvision_networks.published_weights(name, ways)
