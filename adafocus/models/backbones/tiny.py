"""Small networks for a CPU, trained from scratch: one for patches, one that keeps a map of a small glance."""

from __future__ import annotations

from torch import Tensor, nn

from adafocus.models.backbones.backbone import MaxPool


class Tiny(nn.Module):
    """Four 3x3 convolutions with batch norm, pooled by maximum: what it looks for is small beside its input."""

    channels = (24, 48, 96, 96)

    def __init__(self, num_classes: int, strides: tuple[int, ...]) -> None:
        super().__init__()
        layers = [
            TinyBlock(before, after, stride)
            for before, after, stride in zip((3, *self.channels), self.channels, strides, strict=False)
        ]
        self.features = nn.Sequential(*layers)
        self.avgpool = MaxPool()
        self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(self.channels[-1], num_classes))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Normalised images -> logits_NK."""
        return self.classifier(self.avgpool(self.features(images_NCHW)))


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
