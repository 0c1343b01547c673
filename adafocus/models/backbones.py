"""Image networks behind one interface: pixels in; a feature map, a pooled vector and the network's own logits out.

The networks are torchvision's, taken apart into body and last layers; `tiny` is a small one for a CPU. A new backbone
is one builder in `BACKBONES`; only networks whose parts together compute the same as the whole are taken.

Shapes: N images, C colours, H W pixels, D features, h w map cells, K classes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from adafocus.models.shift import add_shift
from preprocessing.schema import UserError

State = dict[str, Tensor]


class Backbone(nn.Module):
    """A body that makes a feature map, global average pooling, and the network's own last layers.

    `num_features` is D of map and pooled vector. The last layers serve pretraining and the glancer's own prediction.
    """

    def __init__(self, body: nn.Sequential, last: nn.Sequential, num_features: int, max_pool: bool = False) -> None:
        super().__init__()
        self.max_pool = max_pool
        self.body = body
        self.last = last
        self.num_features = num_features

    def features(self, images_NCHW: Tensor) -> Tensor:
        """Normalised images -> map_NDhw."""
        return self.body(images_NCHW)

    def pool(self, map_NDhw: Tensor) -> Tensor:
        """map -> feature_ND: over its cells the mean, as torchvision's networks, or the maximum."""
        return map_NDhw.amax((-2, -1)) if self.max_pool else map_NDhw.mean((-2, -1))

    def head(self, feature_ND: Tensor) -> Tensor:
        """Pooled vector -> logits_NK of the network's own last layers."""
        return self.last(feature_ND)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Normalised images -> feature_ND."""
        return self.pool(self.features(images_NCHW))

    def set_dropout(self, probability: float) -> None:
        """Of the own last layers."""
        for module in self.last.modules():
            if isinstance(module, nn.Dropout):
                module.p = probability


Builder = Callable[[int], nn.Module]
"""Number of classes -> a whole network with torchvision's parameter names and random weights."""


class Tiny(nn.Module):
    """Four 3x3 convolutions with batch norm, pooled by maximum: what it looks for is small beside its input."""

    max_pool = True

    channels = (24, 48, 96, 96)

    def __init__(self, num_classes: int, strides: tuple[int, ...]) -> None:
        super().__init__()
        layers = [
            TinyBlock(before, after, stride)
            for before, after, stride in zip((3, *self.channels), self.channels, strides, strict=False)
        ]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(self.channels[-1], num_classes))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Normalised images -> logits_NK."""
        return self.classifier(self.features(images_NCHW).amax((-2, -1)))


class TinyBlock(nn.Module):
    """Convolution, batch norm, ReLU."""

    first_layer = "conv"

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, map_NChw: Tensor) -> Tensor:
        """Half the side where the stride is 2."""
        return self.relu(self.norm(self.conv(map_NChw)))


def _torchvision(name: str, num_classes: int) -> nn.Module:
    return torchvision.models.get_model(name, weights=None, num_classes=num_classes)


TORCHVISION = (
    *(f"resnet{depth}" for depth in (18, 34, 50, 101)),
    "mobilenet_v2",
    *(f"mobilenet_v3_{size}" for size in ("small", "large")),
    *(f"efficientnet_b{size}" for size in range(4)),
    *(f"regnet_{size}" for size in ("x_400mf", "x_800mf", "y_400mf", "y_800mf", "y_1_6gf", "y_3_2gf")),
)
BACKBONES: dict[str, Builder] = {
    "tiny": partial(Tiny, strides=(2, 2, 2, 1)),
    "tiny_glance": partial(Tiny, strides=(2, 2, 1, 1)),
    **{name: partial(_torchvision, name) for name in TORCHVISION},
}
"""The tiny ones, from scratch, make the demo on a CPU: one for patches, one that keeps a map of a small glance."""


def _split(name: str, net: nn.Module) -> Backbone:
    """Take a network apart into its body and its last layers, which residual networks call `fc`, others `classifier`.

    Raises UserError unless body, pooling and last layers give the logits of the whole: a network that does more between
    them (DenseNet, ConvNeXt, transformers) would be another one in parts, and its weights worthless.
    """
    parts = OrderedDict(net.named_children())
    last = parts.pop("classifier", None) or parts.pop("fc", None)
    parts.pop("avgpool", None)
    linear = [module for module in (last.modules() if last else ()) if isinstance(module, nn.Linear)]
    if last is None or not linear:
        raise UserError(f"{name} cannot be a backbone: it has no `classifier` or `fc` with a linear layer")
    if isinstance(last, nn.Linear):
        last = nn.Sequential(nn.Dropout(0.0), last)
    body = cast(nn.Sequential, parts["features"]) if "features" in parts else nn.Sequential(parts)
    backbone = Backbone(body, cast(nn.Sequential, last), linear[0].in_features, getattr(net, "max_pool", False))
    if linear[0].weight.device.type != "meta":  # where nothing is computed, but counted
        _compare(name, net, backbone)
    return backbone


@torch.no_grad()
def _compare(name: str, net: nn.Module, backbone: Backbone) -> None:
    """Raise UserError if a network and its parts do not agree on the logits of an image."""
    device = next(net.parameters()).device
    image_1CHW = torch.linspace(-2, 2, 3 * 64 * 64, device=device).view(1, 3, 64, 64)
    was_training = net.training
    net.eval()  # and so its parts, which are the backbone's
    try:
        wanted, found = net(image_1CHW), backbone.head(backbone(image_1CHW))
        agree = torch.allclose(found, wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item())
    except Exception as error:  # of whatever kind a network raises for an input of another shape
        raise UserError(f"{name} cannot be a backbone, its parts do not fit: {repr(error).splitlines()[0]}") from error
    finally:
        net.train(was_training)
    if not agree:
        raise UserError(f"{name} cannot be a backbone: its parts do not give the whole network's logits")


def build_backbone(
    name: str,
    num_classes: int,
    weights: str = "none",
    *,
    dropout: float | None = None,
    shift_frames: int | None = None,
    setting: str = "weights",
) -> Backbone:
    """A backbone from the table with its initial weights.

    `weights`: `imagenet` (torchvision's first published weights, those of the paper's time), `none`, or a file with
    torchvision's parameter names (state dict or safetensors). `dropout` replaces that of the last layers,
    `shift_frames` adds temporal shift for clips of so many frames. `setting` is the name of the one that chose the
    weights, for messages. Raises UserError for an unknown name, for a network that cannot be taken apart, and for
    weights that cannot be fetched or do not fit.
    """
    if name not in BACKBONES:
        raise UserError(f"unknown backbone {name!r}; there are {', '.join(BACKBONES)}")
    net = BACKBONES[name](num_classes)
    if weights != "none":
        state = _imagenet(name, setting) if weights == "imagenet" else read_weights(Path(weights))
        _fill(net, state, f"{name} from {weights}")
    backbone = _split(name, net)
    if dropout is not None:
        backbone.set_dropout(dropout)
    if shift_frames is not None:
        add_shift(backbone.body, shift_frames)
    return backbone


def read_weights(path: Path) -> State:
    """A state dict from a file, nothing unpickled but tensors. Raises UserError if there is none."""
    if not path.is_file():
        raise UserError(f"weights file {path} does not exist")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"weights file {path} cannot be read: {str(error).splitlines()[0]}") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"weights file {path} holds no state dict (a table of names and tensors)")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _imagenet(name: str, setting: str) -> State:
    ways = f"give --set {setting}=FILE, a file with torchvision's parameter names, or --set {setting}=none"
    if name not in TORCHVISION:
        raise UserError(f"there are no published ImageNet weights for {name!r}: {ways}")
    weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
        raise UserError(f"cannot fetch {weights.url} ({error}): {ways}") from error


def _fill(net: nn.Module, state: State, what: str) -> None:
    """Load `state`; the very last layer stays fresh if it was made for another number of classes."""
    own = net.state_dict()
    last = next(reversed([key for key, module in net.named_modules() if isinstance(module, nn.Linear)]))
    keys = {f"{last}.weight", f"{last}.bias"}
    if keys <= state.keys() and any(state[key].shape != own[key].shape for key in keys):
        state = {key: own[key] if key in keys else value for key, value in state.items()}
    counters = {key for key in own if key.endswith("num_batches_tracked")}  # absent from old files
    missing = sorted(own.keys() - state.keys() - counters)
    surplus = sorted(state.keys() - own.keys())
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own.keys() & state.keys()
        if state[key].shape != own[key].shape
    ]
    if missing or surplus or shapes:
        raise UserError(f"weights do not fit {what}: {describe(missing=missing, surplus=surplus, shapes=shapes)}")
    net.load_state_dict(state, strict=False)


def describe(**lists: list[str]) -> str:
    """`missing: a, b; surplus: c` for an error message; empty lists are left out."""
    return "; ".join(f"{name}: {', '.join(sorted(items))}" for name, items in lists.items() if items)
