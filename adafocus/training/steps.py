"""What every training step needs: its seed, its learning rate, and a look at its loss."""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

from adafocus import distributed
from adafocus.config.schema import OptimConfig
from adafocus.divergence import DivergedError

CHECK_EVERY = 20
"""Steps between looks at the losses: one host synchronisation for so many steps."""


class NonFiniteLossError(DivergedError):
    """The loss was NaN or infinite; names the clips."""


class LossWatch:
    """Collects losses on the device and looks at them now and then, so that a step needs no synchronisation.

    Workers look at the same steps and tell each other: all of them stop for a loss of one, where those without it
    would wait in vain for its gradients.
    """

    def __init__(self) -> None:
        self.pending: list[tuple[Tensor, list[str]]] = []
        self.steps = 0
        """Since the last look."""

    def add(self, loss: Tensor, clip_ids: list[str]) -> None:
        """Remember a loss."""
        self.pending.append((loss, clip_ids))

    def end_step(self) -> None:
        """Raises NonFiniteLossError at every CHECK_EVERY-th call if a loss was not finite."""
        self.steps += 1
        if self.steps >= CHECK_EVERY:
            self.check()

    def check(self) -> None:
        """Raise NonFiniteLossError if a remembered loss, of whichever worker, is NaN or infinite."""
        values = torch.stack([loss for loss, _ in self.pending]).tolist() if self.pending else []
        bad = (number for number, value in enumerate(values) if not math.isfinite(value))
        own = next(((number, values[number], self.pending[number][1]) for number in bad), None)
        found = [first for first in distributed.gather(own) if first is not None]
        if found:
            _, value, clip_ids = min(found, key=lambda first: first[0])
            raise NonFiniteLossError(f"the loss is {value} on the batch of clips {', '.join(clip_ids)}")
        self.pending.clear()
        self.steps = 0


def seed_step(seed: int, stage: str, epoch: int, step: int, draws: torch.Generator | None = None) -> None:
    """Seed torch's generators for one step on this rank (dropout), and `draws` alike on all ranks."""
    name = f"{seed}/{stage}/{epoch}/{step}"
    torch.manual_seed(zlib.crc32(f"{name}/{distributed.rank()}".encode()))
    if draws:
        draws.manual_seed(zlib.crc32(name.encode()))


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
