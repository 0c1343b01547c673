"""What skipped frames save: activitynet-plus-128 on two clips of 16 frames, at shares of frames looked at, over none
skipped, as ratios in one run. A gate at random stands in for one that has learnt.

`--rounds` repeats, `--cpu-time` takes one thread and its processor time.
"""

from __future__ import annotations

import argparse
import sys

import torch
from ratios import CLIPS, options_of, race, report

from adafocus.acceleration.accelerate import accelerate
from adafocus.evaluation import multiply_adds
from adafocus.models.adafocus_plus import AdaFocusPlus
from adafocus.models.policies.gate import RandomGate
from helpers.settled import CLASSES, settled_model, video
from pipelines.recipes import find_recipe

TARGETS = {"0.46": 1.35, "0.67": 1.15}
"""Least ratios. In multiply-adds they are 1.77 and 1.36; a look costs less time than its share of them."""


@torch.inference_mode()
def main() -> bool:
    """Returns whether targets are reached."""
    options = options_of(argparse.ArgumentParser(description=__doc__))
    model = accelerate(settled_model(find_recipe("activitynet-plus-128")))
    assert isinstance(model, AdaFocusPlus)
    frames, config = video(1, CLIPS, 16), model.config
    runs = {"every frame": lambda: model(frames, frames)}
    whole = multiply_adds.count(config, CLASSES, looks=1.0)["total"]
    for share in (0.46, 0.67, 0.89):
        skipping = model.with_gate(RandomGate(model.gate, share, torch.Generator().manual_seed(0)))
        runs[f"{share}"] = lambda skipping=skipping: skipping(frames, frames)
        cost = multiply_adds.count(config, CLASSES, looks=share)["total"]
        print(f"{share}: {cost:.1f} of {whole:.1f} GFLOPs, {whole / cost:.2f}x")
    return report(f"skipping, {CLIPS} clips, {torch.get_num_threads()} threads", race(runs, options), TARGETS)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
