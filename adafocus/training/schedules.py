"""Learning rates: what a stage starts from, and how they change over its epochs."""

from __future__ import annotations

import math

from adafocus.config.schema import TrainingConfig

SOONEST = 1e-3
"""Epochs that a warm-up is taken to have lasted at least: its very first step would else be one at rate 0."""


def scaling_line(stage: str, settings: TrainingConfig) -> str:
    """What linear scaling made of a stage's learning rates, in words."""
    scale = settings.lr_scale()
    rates = [(name, getattr(settings, name)) for name in ("lr", "backbone_lr", "head_lr") if hasattr(settings, name)]
    changes = ", ".join(f"{name} {rate:.3g} -> {rate * scale:.3g}" for name, rate in rates)
    return f"{stage}: rates for batch {settings.lr_batch_size} scaled to batch {settings.batch_size}: {changes}"


def lr_factor(settings: TrainingConfig, epoch: int, fraction: float) -> float:
    """Learning rate relative to its base, `fraction` of an epoch after the start of `epoch`.

    A warm-up rises linearly to what the schedule has at the warm-up's end.
    """
    now, end = epoch + fraction, settings.warmup_epochs
    if now >= end:
        return _scheduled(settings, now)
    return _scheduled(settings, end) * min(max(now, SOONEST) / end, 1.0)


def _scheduled(settings: TrainingConfig, now: float) -> float:
    """The factor without warm-up. `cosine` changes once an epoch, as the reference."""
    epoch = math.floor(now)
    if settings.schedule == "step":
        return 0.1 ** sum(epoch >= milestone for milestone in settings.milestones)
    if settings.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (epoch if settings.schedule == "cosine" else now) / settings.epochs))
