"""Whole training steps on one batch, again and again: what a step costs and whether it waits is measured on them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from adafocus.data.batches import Batch
from adafocus.methods import method_of
from adafocus.models.adafocus import AdaFocus
from adafocus.models.crop import random_corners
from adafocus.training.loss_watch import LossWatch
from adafocus.training.update import Updater
from helpers.per_frame import plain_ppo_loss

SEED = 3
"""Of the draws of every step."""


def stage_step(model: AdaFocus, name: str, batch: Batch) -> Callable[[], Tensor]:
    """A step of a stage as training makes it, on the model's device; returns the loss. The model learns."""
    stage = method_of(model.config).stage(name)(model, model.config).train()
    device = model.mean.device
    scaler = torch.amp.GradScaler(device.type, enabled=stage.settings.precision == "fp16")
    updater = Updater(stage, stage.optimizer(), scaler, device, wrapped=stage)

    def step() -> Tensor:
        stage.draws.manual_seed(SEED)
        return updater.step(itertools.repeat(batch), LossWatch())["loss"]

    return step


def plain_ppo_step(model: AdaFocus, batch: Batch) -> Callable[[], Tensor]:
    """The same of ppo in the plain formulation, acting as the stage does in its first step."""
    model.requires_grad_(False).policy.requires_grad_(True)
    optimizer = torch.optim.Adam(model.policy.parameters(), lr=model.config.ppo.lr)
    generator = torch.Generator().manual_seed(SEED)  # drawn from as the stage does
    moved = batch.to(model.mean.device)
    with torch.no_grad():
        actions = model.policy(model.states(model.glance(moved.glance_BTCHW))).actions.sample(generator)
    sizes = (moved.glance_BTCHW.shape[-1], model.config.model.patch_size)
    others = random_corners(tuple(actions.shape), *sizes, device=model.mean.device, generator=generator)

    def step() -> Tensor:
        loss = plain_ppo_loss(model, model.config.ppo, moved.glance_BTCHW, actions, others, moved.labels_BL[:, 0])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step
