"""One ppo step of activitynet-128 on two clips: the stage's own against one call per frame, as ratios in one run.

A step is what training does with a batch: a rollout, the loss, the backward pass and the optimizer's step; both sides
run the policy twice, to act and to learn. The plain one takes the frames of both clips at a time, as the reference
does, and acts as the stage did in its first step: their first losses are equal. Options as in bench_inference.py.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable

import torch
from ratios import CLIPS, options_of, race, report
from torch import Tensor

from adafocus.config.overrides import override
from adafocus.data.batches import Batch
from helpers.settled import CLASSES, settled_model, video
from helpers.training_steps import SEED, plain_ppo_step, stage_step
from pipelines.recipes import find_recipe

TARGETS = {"float32": 1.8, "bf16": 3.0}


def keeping(step: Callable[[], Tensor], losses: list[float]) -> Callable[[], None]:
    """The same step, whose losses are kept."""
    return lambda: losses.append(step().item())


def main() -> bool:
    """Returns whether losses agree and targets are reached."""
    options = options_of(argparse.ArgumentParser(description=__doc__))
    model = settled_model(find_recipe("activitynet-128")).requires_grad_(False)
    frames = video(1, CLIPS, 16)
    labels = torch.randint(CLASSES, (CLIPS, 1), generator=torch.Generator().manual_seed(SEED))
    batch = Batch(frames, frames, labels, [f"clip {number}" for number in range(CLIPS)])
    losses: dict[str, list[float]] = {name: [] for name in ("per frame", *TARGETS)}
    runs = {"per frame": keeping(plain_ppo_step(copy.deepcopy(model), batch), losses["per frame"])}
    for precision in TARGETS:
        own = copy.deepcopy(model)
        own.config = override(model.config, {"ppo.batch_size": CLIPS, "ppo.precision": precision})
        runs[precision] = keeping(stage_step(own, "ppo", batch), losses[precision])
    ok = report(f"ppo step, {CLIPS} clips, {torch.get_num_threads()} threads", race(runs, options), TARGETS)
    for name, values in losses.items():
        print(f"{name:28}losses {', '.join(f'{value:.4f}' for value in values[:4])}")
    return ok and abs(losses["per frame"][0] - losses["float32"][0]) < 1e-3


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
