"""What the speed benchmarks share: a settled model, frames, and fair timing on a machine that others use too."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adafocus.config import override
from adafocus.models.adafocus import AdaFocus, build_model
from pipelines.recipes import RECIPES

CLIPS = 2
CLASSES = 200


def video(seed: int, clips: int, num_frames: int) -> Tensor:
    """Smooth uint8 frames BTCHW."""
    cells = torch.randn(clips * num_frames, 3, 7, 7, generator=torch.Generator().manual_seed(seed))
    pixels = F.interpolate(cells, size=(224, 224), mode="bilinear", align_corners=True)
    return (pixels * 60 + 120).clamp(0, 255).byte().unflatten(0, (clips, num_frames))


def settled_model(recipe: str) -> AdaFocus:
    """Random weights, with batch norms that have seen frames, so that signals keep their size as in a trained net."""
    torch.manual_seed(0)
    none = {"model.glancer_weights": "none", "model.focuser_weights": "none"}
    model = build_model(override(RECIPES[recipe](), none), CLASSES)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # the plain mean of what it sees
    with torch.no_grad():
        frames = video(0, 1, model.config.data.num_frames)
        glance = model.train().glance(frames)
        model.focus(model.crop(frames, model.act(glance, "centre").corners_BS2))
    return model.eval()


def options_of(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options that both benchmarks have; sets the number of threads."""
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1 if options.cpu_time else 2)
    return options


def race(runs: dict[str, Callable[[], Any]], options: argparse.Namespace) -> dict[str, float]:
    """Best time in seconds of each, taking turns: a busy moment of the machine then meets all of them alike."""
    clock = time.process_time if options.cpu_time else time.perf_counter
    best = dict.fromkeys(runs, float("inf"))
    for number in range(options.rounds + 1):
        for name, run in runs.items():
            start = clock()
            run()
            if number > 0:  # the first round warms up
                best[name] = min(best[name], clock() - start)
    return best


def report(title: str, best: dict[str, float], targets: dict[str, float]) -> bool:
    """Print times and ratios to the first run; are all targets reached?"""
    plain = next(iter(best.values()))
    print(f"\n{title}\n{'':28}{'seconds':>9}{'ratio':>8}{'target':>8}")
    for name, seconds in best.items():
        target = f"{targets[name]:.1f}" if name in targets else ""
        print(f"{name:28}{seconds:9.3f}{plain / seconds:8.2f}{target:>8}")
    slow = [name for name, target in targets.items() if plain / best[name] < target]
    if slow:
        print(f"below target: {', '.join(slow)}")
    if "bf16" in slow and not torch.cpu._is_amx_tile_supported():
        print("(bf16's target is meant for CPUs with matrix units, AMX; this one has none and does not fail for it)")
        slow.remove("bf16")
    return not slow
