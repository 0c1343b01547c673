"""A part of a model as a program of its own, the four of a model, and those that all methods have in common.

Shapes: N frames of one or more clips, C colours, H W pixels, h w map cells, D features, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from adafocus.inference.prediction import ClipFrames
from adafocus.models.adafocus import AdaFocus, glance_at, normalise

RunPart = Callable[..., list[Tensor]]
"""run(name, *inputs) -> outputs of the part of that name."""


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """One exportable part, with inputs that show their shapes."""

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    any_number: bool
    """Is the inputs' first axis of any length (the same for all), rather than that of a clip?"""


class Programs(ABC):
    """The four programs of a model (on the CPU): glancer, policy, focuser, classifier."""

    by: Literal["frame", "clip", "choice"]
    """How often they run: all for every frame, once for a clip, or once for a clip whose frames the policy chooses."""
    glance_input: str | None = None
    """Which of the glancer's outputs the classifier takes as `glance`: feature, logits, or none of them."""
    outputs_of_glancer: ClassVar[tuple[str, ...]] = ("map", "feature", "logits")

    def start_states(self, clips: int = 1) -> dict[str, Tensor]:
        """The zeros that states start with, by their names."""
        return {}

    @abstractmethod
    def take_apart(self) -> list[Program]:
        """The programs in the order in which they run. What they are given to show their shapes is noise."""

    @abstractmethod
    def run_clip(self, clip: ClipFrames, run: RunPart) -> Tensor:
        """The prediction of every exit (X, K) of a whole clip that passes through the parts."""


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
