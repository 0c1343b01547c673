"""The check that losses are finite, made now and then, so that no training step waits for the device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from adafocus import distributed
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
        non_finite = [first for first in distributed.gather(own) if first is not None]
        if non_finite:
            _, value, clip_ids = min(non_finite, key=lambda first: first[0])
            raise NonFiniteLossError(f"the loss is {value} on the batch of clips {', '.join(clip_ids)}")
        self.pending.clear()
        self.steps = 0
