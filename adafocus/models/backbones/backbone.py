"""What every image network is to the rest of the project: pixels in; a map, a pooled vector, and its own logits out.

A network is taken apart into a body, a pooling and its last layers, which together compute what it computes as a whole.
Each provider (torchvision, timm, the small ones here) makes a `Backbone` of its networks.

Shapes: N images, C colours, H W pixels, D features, h w map cells, L tokens, K classes.
"""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor, nn

Channels = tuple[float, float, float]
"""A value each for red, green and blue, of the range 0 to 1."""

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)


class MeanPool(nn.Module):
    """The mean over a map's cells."""

    def forward(self, map_NDhw: Tensor) -> Tensor:
        """map -> feature_ND."""
        return map_NDhw.mean((-2, -1))


class MaxPool(nn.Module):
    """The maximum over a map's cells."""

    def forward(self, map_NDhw: Tensor) -> Tensor:
        """map -> feature_ND."""
        return map_NDhw.amax((-2, -1))


class Backbone(nn.Module):
    """An image network in its parts. This one has a body that makes a map; one that makes tokens says how they are a
    map.

    `body` takes normalised images, `pooling` what the body makes, `last` the pooled vector; the last layers serve
    pretraining and the glancer's own prediction.
    """

    step: int = 1
    """Sides of images have to be multiples of it, in pixels."""
    num_channels: int
    """D of the map."""
    num_features: int
    """D of the pooled vector."""
    last: nn.Sequential
    scale: Tensor | None
    offset: Tensor | None

    def __init__(
        self,
        body: nn.Module,
        pooling: nn.Module,
        last: nn.Sequential,
        num_features: int,
        *,
        num_channels: int | None = None,
        mean: Channels = IMAGENET_MEAN,
        std: Channels = IMAGENET_STD,
    ) -> None:
        """`mean` and `std` are those of the images that the network was trained on."""
        super().__init__()
        self.body, self.pooling, self.last = body, pooling, last
        self.num_features = num_features
        self.num_channels = num_channels or num_features
        is_usual = (mean, std) == (IMAGENET_MEAN, IMAGENET_STD)
        for name, values in _renormalisation(mean, std).items():
            self.register_buffer(name, None if is_usual else values, persistent=False)

    def features(self, images_NCHW: Tensor) -> Tensor:
        """Images, normalised with ImageNet's mean and spread -> what the body makes of them."""
        if self.scale is not None and self.offset is not None:
            images_NCHW = images_NCHW * self.scale + self.offset
        return self.body(images_NCHW)

    def to_map(self, features: Tensor) -> Tensor:
        """What the body makes -> map_NDhw."""
        return features

    def pool(self, features: Tensor) -> Tensor:
        """What the body makes -> feature_ND."""
        return self.pooling(features)

    def head(self, feature_ND: Tensor) -> Tensor:
        """Pooled vector -> logits_NK of the network's own last layers."""
        return self.last(feature_ND)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Normalised images -> feature_ND."""
        return self.pool(self.features(images_NCHW))

    def shift_sites(self) -> list[tuple[nn.Module, str]]:
        """Residual blocks, and the name of the layer in each before which features may be shifted in time."""
        return []

    def with_parts(self, **parts: nn.Module) -> Self:
        """The same network with another `body` or `last`; all else is shared."""
        other = copy.copy(self)
        other._modules = {**self._modules, **parts}
        return other

    def set_dropout(self, probability: float) -> None:
        """Of the own last layers."""
        for module in self.last.modules():
            if isinstance(module, nn.Dropout):
                module.p = probability


def _renormalisation(mean: Channels, std: Channels) -> dict[str, Tensor]:
    """What brings images from ImageNet's mean and spread to others: images * scale + offset."""
    usual, spread, own, own_spread = (
        torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD, mean, std)
    )
    return {"scale": spread / own_spread, "offset": (usual - own) / own_spread}
