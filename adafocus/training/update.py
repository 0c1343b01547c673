"""One step of training: as many micro-batches as a global batch has, and the optimizer steps that follow.

Nothing in a step waits for the device: a scaler's optimizer step is that of a fused kernel (`Stage.optimizer`), and
losses are left to a `LossWatch`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

from adafocus.acceleration.accelerate import DTYPES
from adafocus.data.loader import Batch
from adafocus.stages.stage import Collected, Logs, Stage
from adafocus.training.loss_watch import LossWatch

MicroBatch = tuple[list[str], Collected]
"""Clip ids, and what `Stage.collect` made of the clips."""


@dataclass(frozen=True, slots=True)
class Updater:
    """Steps of one stage."""

    stage: Stage
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    device: torch.device
    wrapped: nn.Module = field(kw_only=True)
    """The stage, or what averages its gradients over the workers."""

    def step(self, batches: Iterator[Batch], watch: LossWatch) -> Logs:
        """Take the micro-batches of one global batch, and one optimizer step per pass over them.

        A stage that needs them all at once has them collected first; else one is done with before the next is taken.
        Logs are means over clips and passes.
        """
        count, passes = self.stage.settings.accumulate, self.stage.updates_per_batch
        rollouts = [self._collect(batches, number) for number in range(count)] if self.stage.whole_batch else []
        if rollouts:
            self.stage.prepare([collected for _, collected in rollouts])
        logs: Logs = {}
        for _ in range(passes):
            for number in range(count):
                clip_ids, collected = rollouts[number] if rollouts else self._collect(batches, number)
                scalars = self._backward(number, clip_ids, collected, watch)
                parts = self.stage.parts(len(clip_ids))
                _add(logs, {key: value / (parts * passes) for key, value in scalars.items()})
            _add(logs, {key: value / passes for key, value in self._update().items()})
        watch.end_step()
        return logs

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """The stage's precision, for what learns."""
        dtype = DTYPES[self.stage.settings.precision if self.stage.learns_in_half else "float32"]
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)

    def _collect(self, batches: Iterator[Batch], number: int) -> MicroBatch:
        self.stage.begin(number)
        batch = next(batches).to(self.device)
        with torch.no_grad(), self.autocast():
            return batch.clip_ids, self.stage.collect(batch)

    def _backward(self, number: int, clip_ids: list[str], collected: Collected, watch: LossWatch) -> Logs:
        last = number == self.stage.settings.accumulate - 1
        with contextlib.nullcontext() if last else getattr(self.wrapped, "no_sync", contextlib.nullcontext)():
            with self.autocast():
                loss, scalars = self.wrapped(collected)
            self.scaler.scale(loss / self.stage.parts(len(clip_ids))).backward()
        watch.add(loss.detach(), clip_ids)
        return {key: value.detach() for key, value in {"loss": loss, **scalars}.items()}

    def _update(self) -> Logs:
        settings, logs = self.stage.settings, {}
        if settings.clip_grad_norm:
            self.scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            logs["grad_norm"] = nn.utils.clip_grad_norm_(parameters, settings.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return logs


def _add(logs: Logs, more: Logs) -> None:
    for key, value in more.items():
        logs[key] = logs[key] + value if key in logs else value
