"""One ppo step of activitynet-128 on two clips: the stage's own against one call per frame, as ratios in one run.

A step is what training does with a batch: a rollout, the loss, the backward pass and the optimizer's step; both sides
run the policy twice, to act and to learn. The plain one takes the frames of both clips at a time, as the reference
does, and acts as the stage did in its first step: their first losses are equal. Options as in bench_inference.py.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import sys
from collections.abc import Callable

import torch
from ratios import CLASSES, CLIPS, options_of, race, report, settled_model, video
from torch import Tensor

from adafocus.config.overrides import override
from adafocus.data.batches import Batch
from adafocus.models.adafocus import AdaFocus
from adafocus.models.crop import random_corners
from adafocus.stages import reinforcement
from adafocus.stages.ppo import PPO
from adafocus.training.loss_watch import LossWatch
from adafocus.training.update import Updater

TARGETS = {"float32": 1.8, "bf16": 3.0}
SEED = 3


def crop(frame_BCHW: Tensor, corners_B2: Tensor, side: int) -> Tensor:
    """Patch after patch."""
    pairs = zip(frame_BCHW, corners_B2.tolist(), strict=True)
    return torch.stack([image[:, r : r + side, c : c + side] for image, (r, c) in pairs])


def per_frame(model: AdaFocus, frames: Tensor, actions: Tensor, others: Tensor, labels: Tensor) -> Tensor:
    """The loss of the plain formulation: frame after frame, contiguous float32, a Python loop for the returns."""
    settings = model.config.ppo
    images = ((frames - model.mean) / model.std).contiguous()
    side, corners = model.config.model.patch_size, model.policy.corners(actions, frames.shape[-1])
    maps, rewards, behaviour, policy_state, state = [], [], [], None, None
    with torch.no_grad():
        for step in range(images.shape[1]):
            frame = images[:, step].contiguous()
            map_NDhw = model.glancer.features(frame)
            output, policy_state = model.policy.step(map_NDhw, policy_state)
            behaviour.append(output.actions.log_prob(actions[:, step : step + 1])[:, 0])
            pooled, confidence, after = model.glancer.pool(map_NDhw), [], state
            for where in (others, corners):
                patch = crop(frame, where[:, step], side)
                logits, after = model.classifier.step(torch.cat([pooled, model.focuser(patch)], 1), state)
                confidence.append(logits.softmax(1).gather(1, labels[:, None])[:, 0])
            state = after
            maps.append(map_NDhw)
            rewards.append(confidence[1] - confidence[0])
        returns: list[Tensor] = []
        for reward in reversed(rewards):
            returns.insert(0, reward + settings.gamma * (returns[0] if returns else 0))
        returns_BS = torch.stack(returns, 1)
        returns_BS = (returns_BS - returns_BS.mean()) / (returns_BS.std() + 1e-5)
    log_prob, value, entropy, policy_state = [], [], [], None
    for step, map_NDhw in enumerate(maps):
        output, policy_state = model.policy.step(map_NDhw, policy_state)
        log_prob.append(output.actions.log_prob(actions[:, step : step + 1])[:, 0])
        value.append(output.value_BS[:, 0])
        entropy.append(output.actions.entropy()[:, 0])
    loss, _ = reinforcement.ppo_loss(
        settings,
        log_prob_BS=torch.stack(log_prob, 1),
        behaviour_BS=torch.stack(behaviour, 1),
        value_BS=torch.stack(value, 1),
        returns_BS=returns_BS,
        entropy_BS=torch.stack(entropy, 1),
    )
    return loss


def plain_step(model: AdaFocus, batch: Batch, losses: list[float]) -> Callable[[], None]:
    """A whole step of the plain formulation."""
    model.policy.requires_grad_(True)
    optimizer = torch.optim.Adam(model.policy.parameters(), lr=model.config.ppo.lr)
    generator = torch.Generator().manual_seed(SEED)  # drawn from as the stage does
    with torch.no_grad():
        actions = model.policy(model.states(model.glance(batch.glance_BTCHW))).actions.sample(generator)
    sizes = (batch.glance_BTCHW.shape[-1], model.config.model.patch_size)
    others = random_corners(tuple(actions.shape), *sizes, generator=generator)

    def step() -> None:
        loss = per_frame(model, batch.glance_BTCHW, actions, others, batch.labels_BL[:, 0])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())

    return step


def stage_step(model: AdaFocus, batch: Batch, precision: str, losses: list[float]) -> Callable[[], None]:
    """A whole step of training."""
    config = override(model.config, {"ppo.batch_size": CLIPS, "ppo.precision": precision})
    stage = PPO(model, config).train()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    updater = Updater(stage, stage.optimizer(), scaler, torch.device("cpu"), wrapped=stage)

    def step() -> None:
        stage.draws.manual_seed(SEED)
        losses.append(updater.step(itertools.repeat(batch), LossWatch())["loss"].item())

    return step


def main() -> bool:
    """Returns whether losses agree and targets are reached."""
    options = options_of(argparse.ArgumentParser(description=__doc__))
    model = settled_model("activitynet-128").requires_grad_(False)
    frames = video(1, CLIPS, 16)
    labels = torch.randint(CLASSES, (CLIPS, 1), generator=torch.Generator().manual_seed(SEED))
    batch = Batch(frames, frames, labels, [f"clip {number}" for number in range(CLIPS)])
    losses: dict[str, list[float]] = {name: [] for name in ("per frame", *TARGETS)}
    runs = {"per frame": plain_step(copy.deepcopy(model), batch, losses["per frame"])}
    runs |= {name: stage_step(copy.deepcopy(model), batch, name, losses[name]) for name in TARGETS}
    ok = report(f"ppo step, {CLIPS} clips, {torch.get_num_threads()} threads", race(runs, options), TARGETS)
    for name, values in losses.items():
        print(f"{name:28}losses {', '.join(f'{value:.4f}' for value in values[:4])}")
    return ok and abs(losses["per frame"][0] - losses["float32"][0]) < 1e-3


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
