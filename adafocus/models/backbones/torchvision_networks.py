"""torchvision's networks as backbones, and any network with its names: `features`, `classifier` or `fc`.

torchvision takes more than a second to import, so it is imported where one of its networks is built; what differs
between them goes by the names of their classes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

from torch import Tensor, nn

from adafocus.models.backbones.backbone import Backbone, MaxPool, MeanPool
from adafocus.models.backbones.weights import State
from preprocessing.schema import UserError

TORCHVISION = (
    *(f"resnet{depth}" for depth in (18, 34, 50, 101)),
    "mobilenet_v2",
    *(f"mobilenet_v3_{size}" for size in ("small", "large")),
    *(f"efficientnet_b{size}" for size in range(4)),
    *(f"regnet_{size}" for size in ("x_400mf", "x_800mf", "y_400mf", "y_800mf", "y_1_6gf", "y_3_2gf")),
    "densenet121",
    *(f"convnext_{size}" for size in ("tiny", "small")),
)

FIRST_LAYER = {
    "torchvision.models.resnet.BasicBlock": "conv1",
    "torchvision.models.resnet.Bottleneck": "conv1",
    "torchvision.models.mobilenetv2.InvertedResidual": "conv.0.0",
    "torchvision.models.mobilenetv3.InvertedResidual": "block.0.0",
    "torchvision.models.efficientnet.MBConv": "block.0.0",
    "torchvision.models.regnet.ResBottleneckBlock": "f.a.0",
    "torchvision.models.convnext.CNBlock": "block.0",
}
"""Residual blocks and the name of their first convolution."""


def class_name(module: nn.Module) -> str:
    """Full name of a module's class."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


class PlainBackbone(Backbone):
    """A network whose body is one row of layers."""

    def shift_sites(self) -> list[tuple[nn.Module, str]]:
        """Inverted residuals count only where they add their input, as in the published MobileNetV2. A block may also
        carry an attribute `first_layer` that names its own convolution."""
        blocks = list(self.body.modules())
        names = [FIRST_LAYER.get(class_name(block)) or str(getattr(block, "first_layer", "")) for block in blocks]
        return [
            (block, name)
            for block, name in zip(blocks, names, strict=True)
            if name and getattr(block, "use_res_connect", True)
        ]


class AsMap(nn.Module):
    """A pooled vector as a map of one cell, which some last layers want."""

    def forward(self, feature_ND: Tensor) -> Tensor:
        """feature_ND -> map_ND11."""
        return feature_ND[..., None, None]


def build(name: str, num_classes: int) -> nn.Module:
    """A whole network of torchvision with random weights."""
    import torchvision

    net: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    return net


def take_apart(name: str, net: nn.Module) -> Backbone:
    """Body, pooling and last layers of a network. Raises UserError if it has none by these names."""
    parts = OrderedDict(net.named_children())
    last = parts.pop("classifier", None) or parts.pop("fc", None)
    pooling = parts.pop("avgpool", None)
    linear = [module for module in (last.modules() if last else ()) if isinstance(module, nn.Linear)]
    if last is None or not linear:
        raise UserError(f"{name} cannot be a backbone: it has no `classifier` or `fc` with a linear layer")
    if isinstance(last, nn.Linear):
        last = nn.Sequential(nn.Dropout(0.0), last)
    if class_name(net) == "torchvision.models.convnext.ConvNeXt":
        last = nn.Sequential(AsMap(), *last.children())
    body = parts["features"] if "features" in parts else nn.Sequential(parts)
    if class_name(net) == "torchvision.models.densenet.DenseNet":
        body = nn.Sequential(body, nn.ReLU(inplace=True))
    pooled = MaxPool() if isinstance(pooling, MaxPool) else MeanPool()
    return PlainBackbone(body, pooled, cast(nn.Sequential, last), linear[0].in_features)


def published_weights(name: str, ways: str) -> State:
    """torchvision's first published ImageNet weights. Raises UserError, which ends with `ways` out, if they cannot be
    fetched."""
    import torchvision

    weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
        raise UserError(f"cannot fetch {weights.url} ({error}): {ways}") from error
