"""Learning rates: what a stage starts from, and how they change over its epochs."""

from __future__ import annotations

import math

from adafocus.config.schema import OptimConfig


def scaling_line(stage: str, settings: OptimConfig) -> str:
    """What linear scaling made of a stage's learning rates, in words."""
    scale = settings.lr_scale()
    rates = [(name, getattr(settings, name)) for name in ("backbone_lr", "head_lr")]
    changes = ", ".join(f"{name} {rate:.3g} -> {rate * scale:.3g}" for name, rate in rates)
    return f"{stage}: rates for batch {settings.lr_batch_size} scaled to batch {settings.batch_size}: {changes}"


def lr_factor(settings: OptimConfig, epoch: int, fraction: float) -> float:
    """Learning rate relative to its base. `cosine` changes once an epoch, as the reference."""
    now = epoch + (0.0 if settings.schedule == "cosine" else fraction)
    if now < settings.warmup_epochs:
        return max(epoch + fraction, 1e-3) / settings.warmup_epochs
    if settings.schedule == "step":
        return 0.1 ** sum(epoch >= milestone for milestone in settings.milestones)
    return 1.0 if settings.schedule == "constant" else 0.5 * (1 + math.cos(math.pi * now / settings.epochs))
