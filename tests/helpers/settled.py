"""Models with random weights whose signals keep their size, and smooth frames: what speed and precision are measured
with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.methods import build_model
from adafocus.models.adafocus import AdaFocus

CLASSES = 200
CPU = torch.device("cpu")


def video(seed: int, clips: int, num_frames: int, side: int = 224, device: torch.device = CPU) -> Tensor:
    """Smooth uint8 frames BTCHW, with colours last in memory as the loader's."""
    cells = torch.randn(clips * num_frames, 3, 7, 7, generator=torch.Generator().manual_seed(seed)).to(device)
    pixels = F.interpolate(cells, size=(side, side), mode="bilinear", align_corners=True)
    images_NCHW = (pixels * 60 + 120).clamp(0, 255).byte().contiguous(memory_format=torch.channels_last)
    return images_NCHW.unflatten(0, (clips, num_frames))


def views(config: Config, seed: int, clips: int, device: torch.device = CPU) -> tuple[Tensor, Tensor]:
    """Glance and focus frames of clips for a configuration: the same tensor where its networks share frames."""
    glance_BTCHW = video(seed, clips, config.data.num_frames, config.data.crop, device)
    if config.data.shares_frames:
        return glance_BTCHW, glance_BTCHW
    return glance_BTCHW, video(seed + 1, clips, config.data.num_offered, config.data.crop, device)


def settled_model(config: Config, num_classes: int = CLASSES, device: torch.device = CPU) -> AdaFocus:
    """Random weights, with batch norms that have seen frames, so that signals keep their size as in a trained net.

    Each remembers the plain mean of what it has seen.
    """
    torch.manual_seed(0)
    none = {"model.glancer_weights": "none", "model.focuser_weights": "none"}
    model = build_model(override(config, none), num_classes).to(device)
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None
    glance_BTCHW, focus_BTCHW = views(config, 0, 2, device)
    with torch.no_grad():
        model.train()(glance_BTCHW, focus_BTCHW)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()
