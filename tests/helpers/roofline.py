"""The least time that a model's pass can take on a device, by part, and what sets it: arithmetic or memory.

Every convolution, linear layer and recurrent layer has to do its multiply-adds, and to read its input and weights and
write its output once. Each takes at least the longer of both at the device's measured best; what stands between them
(normalisation, activations, additions) could be fused and takes nothing. Frames are read as bytes, once by the glancer
and once where patches are cut, of which every frame has one here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.methods import build_model
from adafocus.models.adafocus import AdaFocus

NETWORKS = ("glancer", "focuser")


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer does in one pass."""

    part: str
    multiply_adds: int
    numbers: int
    """That are read and written."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The least time of a part in seconds: of its arithmetic, of its memory, and of each layer's longer one."""

    arithmetic: float
    memory: float
    least: float

    @property
    def limit(self) -> str:
        """What most of the time goes to."""
        return "matrix units" if self.arithmetic >= self.memory else "memory"

    def __add__(self, other: Bound) -> Bound:
        return Bound(self.arithmetic + other.arithmetic, self.memory + other.memory, self.least + other.least)


def layers(config: Config, num_classes: int, clips: int) -> list[Layer]:
    """The layers of one inference pass over so many clips; nothing is computed (meta device)."""
    none = {"model.glancer_weights": "none", "model.focuser_weights": "none"}
    data = config.data
    with torch.device("meta"):
        model = build_model(override(config, none), num_classes, pretrained=False).eval()
        glance, focus = (
            torch.empty(clips, count, 3, data.crop, data.crop) for count in (data.num_frames, data.num_offered)
        )
    with torch.no_grad(), _recording(model) as found:
        model(glance, glance if data.shares_frames else focus)
    return found


@contextmanager
def _recording(model: AdaFocus) -> Iterator[list[Layer]]:
    found: list[Layer] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
            result = output[0] if isinstance(output, tuple) else output
            weights = sum(value.numel() for value in module.parameters())
            found.append(
                Layer(name.split(".")[0], _products(module, result), inputs[0].numel() + result.numel() + weights)
            )

        return hook

    kinds = (nn.Conv2d, nn.Conv3d, nn.Linear, nn.GRU)
    handles = [
        module.register_forward_hook(note(name)) for name, module in model.named_modules() if isinstance(module, kinds)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _products(module: nn.Module, output: Tensor) -> int:
    if isinstance(module, (nn.Conv2d, nn.Conv3d)):
        return output.numel() * module.in_channels // module.groups * math.prod(module.kernel_size)
    if isinstance(module, nn.GRU):
        return 3 * output.numel() * (module.input_size + module.hidden_size)
    assert isinstance(module, nn.Linear)
    return output.numel() * module.in_features


def bounds(
    config: Config,
    num_classes: int,
    clips: int,
    *,
    bytes_per_number: int,
    network_peak: float,
    other_peak: float,
    memory_peak: float,
) -> dict[str, Bound]:
    """Least times of an inference pass by part, and `total`. The networks compute with numbers of so many bytes at
    `network_peak` multiply-adds a second; the other parts in float32 at `other_peak`."""
    nothing = Bound(0.0, 0.0, 0.0)
    parts: dict[str, Bound] = {}
    for layer in layers(config, num_classes, clips):
        in_network = layer.part in NETWORKS
        arithmetic = layer.multiply_adds / (network_peak if in_network else other_peak)
        memory = layer.numbers * (bytes_per_number if in_network else 4) / memory_peak
        parts[layer.part] = parts.get(layer.part, nothing) + Bound(arithmetic, memory, max(arithmetic, memory))
    data, side = config.data, config.model.patch_size
    pixels = 3 * clips * (data.num_frames * data.crop**2 + data.num_focus_frames * side**2)
    reading = pixels / memory_peak
    parts["frames"] = Bound(0.0, reading, reading)
    return {**parts, "total": sum(parts.values(), nothing)}
