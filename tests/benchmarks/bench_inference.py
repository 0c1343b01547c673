"""Offline inference of activitynet-128, two clips of 16 frames: ours against one call per frame, as ratios in one run.

"per frame" makes one call of each network for every frame of every clip; "clips together" one for the frames of both
clips at a time. "first" is the first run, in which compiling is. `--rounds` repeats, `--cpu-time` takes one thread and
its processor time: on a machine that others use, only that repeats itself.
"""

from __future__ import annotations

import argparse
import sys

import torch
from ratios import CLIPS, options_of, race, report

from adafocus.acceleration.accelerate import accelerate
from helpers.per_frame import plain_pass
from helpers.settled import settled_model, video
from pipelines.recipes import find_recipe

TARGETS = {"float32": 2.2, "bf16 or float32, compiled or bf16, compiled": 5.0}


@torch.inference_mode()
def main() -> bool:
    """Returns whether outputs agree and targets are reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    options = options_of(parser)
    model = settled_model(find_recipe("activitynet-128"))
    frames = video(1, CLIPS, 16)
    models = {
        "vectorised": model,
        "float32": accelerate(model),
        "bf16": accelerate(model, precision="bf16"),
        "float32, compiled": accelerate(model, compile=True),
        "bf16, compiled": accelerate(model, precision="bf16", compile=True),
    }
    runs = {
        "per frame": lambda: [plain_pass(model, clip, clip) for clip in frames.split(1)],
        "per frame, clips together": lambda: plain_pass(model, frames, frames),
    }
    runs |= {name: lambda fast=fast: fast(frames, frames) for name, fast in models.items()}
    ok = report(f"inference, {CLIPS} clips, {torch.get_num_threads()} threads", race(runs, options), TARGETS)
    many = video(2, 4, 16)
    wanted = torch.cat([plain_pass(model, clips, clips) for clips in many.split(CLIPS)])
    for name, fast in models.items():
        found = torch.cat([fast(clips, clips).logits_BTK for clips in many.split(CLIPS)])
        error = (found - wanted).abs().max().item()
        agree = (found.argmax(-1) == wanted.argmax(-1)).float()
        print(
            f"{name:28}largest error {error:.1e} of logits up to {wanted.abs().max():.2f}; "
            f"top-1 agreement {agree[:, -1].mean():.0%} of clips, {agree.mean():.0%} of prefixes"
        )
        ok &= "bf16" in name or error < 1e-3
    return ok


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
