"""A part of a model as a program of its own, and those parts that all methods have in common.

Shapes: N frames of one or more clips, C colours, H W pixels, h w map cells, D features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from adafocus.models.adafocus import AdaFocus, glance_at, normalise


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """One exportable part, with inputs that show their shapes."""

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    any_number: bool
    """Is the inputs' first axis of any length (the same for all), rather than that of a clip?"""


class Normalised(nn.Module):
    """What takes uint8 images."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: AdaFocus) -> None:
        super().__init__()
        self.register_buffer("mean", model.mean.clone())
        self.register_buffer("std", model.std.clone())

    def normalise(self, images_NCHW: Tensor) -> Tensor:
        """As `AdaFocus.prepare`."""
        return normalise(images_NCHW, self.mean, self.std)


class GlancerProgram(Normalised):
    """frames uint8 (N, C, H, W) -> map (N, D, h, w), feature (N, D), logits (N, K)."""

    def __init__(self, model: AdaFocus) -> None:
        super().__init__(model)
        self.net, self.settings = model.glancer, model.config.model

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `AdaFocus.glance`."""
        return glance_at(self.net, self.normalise(frames), self.settings)
