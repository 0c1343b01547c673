"""timm's networks as backbones: convolutional ones, those with attention, and vision transformers.

timm is an optional package, imported when one of its networks is asked for. It divides every network in two,
`forward_features` and `forward_head`; what the first gives is a map with channels first or last, or tokens.

Shapes: N images, D features, h w map cells, L tokens, K classes.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from adafocus.models.backbones.backbone import Backbone
from adafocus.models.backbones.weights import State
from preprocessing.schema import UserError

PREFIX = "timm/"
"""How their names begin here."""

Form = Literal["map", "channels_last", "tokens"]
"""What the body makes: map_NDhw, map_NhwD, or tokens (N, L, D)."""

FIRST_LAYER = {
    "BasicBlock": "conv1",
    "Bottleneck": "conv1",
    "InvertedResidual": "conv_pw",
    "EdgeResidual": "conv_exp",
    "UniversalInvertedResidual": "dw_start",
    "ConvNeXtBlock": "conv_dw",
}
"""Residual blocks and the name of the layer before which features may be shifted in time."""


class TimmBody(nn.Module):
    """All but the head."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net: Any = net

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Normalised images -> what the network makes before its head."""
        features: Tensor = self.net.forward_features(images_NCHW)
        return features


class TimmPooling(nn.Module):
    """The head without its last layer. Its weights belong to the body, which timm does not divide from it."""

    def __init__(self, body: TimmBody) -> None:
        super().__init__()
        self._body = [body]  # in a list, so that the weights stand in a state dict once

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move with the body's weights, also where another body stands in for it."""
        self._body[0]._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def forward(self, features: Tensor) -> Tensor:
        """What the body makes -> feature_ND."""
        feature_ND: Tensor = self._body[0].net.forward_head(features, pre_logits=True)
        return feature_ND


class TimmBackbone(Backbone):
    """A network of timm."""

    def __init__(self, net: Any, last: nn.Sequential, form: Form, channels: int, features: int) -> None:
        body = TimmBody(net)
        statistics = {name: tuple(net.pretrained_cfg[name]) for name in ("mean", "std")}
        super().__init__(body, TimmPooling(body), last, features, num_channels=channels, **statistics)
        self.form = form
        self.step = patch_side(net)
        self.num_prefix_tokens = int(getattr(net, "num_prefix_tokens", 0))

    def to_map(self, features: Tensor) -> Tensor:
        """Tokens lie row by row, behind those that stand for no place."""
        if self.form == "map":
            return features
        if self.form == "channels_last":
            return features.permute(0, 3, 1, 2)
        map_NDL = features[:, self.num_prefix_tokens :].transpose(1, 2)
        side = round(map_NDL.shape[-1] ** 0.5)  # of a square image
        return map_NDL.unflatten(-1, (side, -1))

    def shift_sites(self) -> list[tuple[nn.Module, str]]:
        """Of blocks that add their input to what they make of it."""
        found = []
        for block in self.body.modules():
            name = FIRST_LAYER.get(type(block).__name__, "")
            adds = getattr(block, "has_skip", getattr(block, "use_shortcut", True))
            if name and adds and isinstance(getattr(block, name, None), nn.Module):
                found.append((block, name))
        return found


def patch_side(net: Any) -> int:
    """Pixels a side of the pieces that a network without convolutions cuts an image into; 1 for others."""
    embedding = getattr(net, "patch_embed", None)
    size = getattr(embedding, "patch_size", 1) if getattr(net, "num_prefix_tokens", None) is not None else 1
    return int(size if isinstance(size, int) else size[0])


def timm_package() -> ModuleType:
    """The package. Raises UserError if it is not installed."""
    try:
        logging.getLogger("timm").setLevel(logging.WARNING)
        import timm
    except ImportError:
        raise UserError("networks of timm need timm: in a checkout of AdaFocus, pip install '.[timm]'") from None
    return timm


def build(name: str, num_classes: int) -> nn.Module:
    """A whole network of timm, for images of any fitting size where it can be so. Raises UserError for a name that timm
    does not know."""
    timm, short = timm_package(), name.removeprefix(PREFIX)
    if not timm.is_model(short):
        near = difflib.get_close_matches(short, timm.list_models(), 1)
        raise UserError(f"unknown backbone {name!r}" + (f"; did you mean {PREFIX}{near[0]}?" if near else ""))
    options = {"num_classes": num_classes, "drop_rate": 0.0}
    try:
        net: Any = timm.create_model(short, dynamic_img_size=True, **options)
    except TypeError:  # most networks take any size without being told so
        net = timm.create_model(short, **options)
    last = net.get_classifier()
    if isinstance(last, nn.Linear):  # some begin with weights that are far too large for few classes
        last.reset_parameters()
    module: nn.Module = net
    return module


def take_apart(name: str, net: Any) -> Backbone:
    """Body, pooling and last layer of a network. Raises UserError for one of another kind."""
    last = net.get_classifier()
    if not isinstance(last, nn.Linear):
        raise UserError(f"{name} cannot be a backbone: its last layer is {type(last).__name__}, not one linear layer")
    training = net.training
    with torch.no_grad():
        side = probe_side(net)
        image_1CHW = torch.zeros(1, 3, side, side, device=last.weight.device)
        features: Tensor = net.eval().forward_features(image_1CHW)
    net.train(training)
    width = int(net.num_features)
    form = _form(name, features, width)
    net.reset_classifier(0)
    return TimmBackbone(net, nn.Sequential(nn.Dropout(0.0), last), form, width, last.in_features)


def probe_side(net: Any) -> int:
    """A side of images, in pixels, that the network takes: a small one if it takes any."""
    embedding, published = getattr(net, "patch_embed", None), dict(net.pretrained_cfg)
    is_free = not getattr(embedding, "strict_img_size", published.get("fixed_input_size", False))
    step = patch_side(net)
    return (4 * step if step > 1 else 64) if is_free else int(published["input_size"][-1])


def _form(name: str, features: Tensor, width: int) -> Form:
    if not isinstance(features, Tensor):
        raise UserError(f"{name} cannot be a backbone: it makes neither a map nor tokens")
    if features.ndim == 4 and features.shape[1] == width:
        return "map"
    if features.ndim == 4 and features.shape[-1] == width:
        return "channels_last"
    if features.ndim == 3 and features.shape[-1] == width:
        return "tokens"
    raise UserError(f"{name} cannot be a backbone: it makes neither a map nor tokens, but {tuple(features.shape)}")


def published_weights(name: str, ways: str) -> State:
    """The weights that timm publishes. Raises UserError, which ends with `ways` out, if they cannot be fetched."""
    timm = timm_package()
    try:
        net = timm.create_model(name.removeprefix(PREFIX), pretrained=True)
    except Exception as error:  # of whatever kind its hub raises
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"cannot fetch the weights of {name} ({reason}): {ways}") from error
    state: State = net.state_dict()
    return state
