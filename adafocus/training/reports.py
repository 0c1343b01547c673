"""What a stage is told about how to run, and what it reports after every epoch and every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True, slots=True)
class EpochReport:
    """What one epoch brought."""

    stage: str
    clock: int
    """Epochs since the start of the first stage, from 1: one monotone clock through all stages."""
    metrics: dict[str, float]
    """Named `<stage>/<metric>`."""
    time_ms: int
    """When, in milliseconds since 1970."""

    def line(self) -> str:
        """The main metrics in one line of text."""
        wanted = ("loss", "accuracy", "reward", "entropy", "top1", "map", "hit_rate", "looked", "seconds")
        shown = {key.split("/")[1]: value for key, value in self.metrics.items()}
        words = [f"{key} {value:.4g}" for key, value in shown.items() if key.endswith(wanted)]
        return f"epoch {self.clock} ({self.stage})  " + "  ".join(words)


Report = Callable[[EpochReport], None]
"""Called on every rank after every epoch, and for every epoch that was trained before."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """Where a stage stands after a step of its training, or after a batch of the evaluation that follows an epoch."""

    stage: str
    epoch: int
    """From 1; 0 in a stage of no epochs."""
    epochs: int
    doing: Literal["training", "evaluation"]
    step: int
    """From 1; of this epoch's training or evaluation."""
    steps: int
    clips: int
    """Of this step, over all workers."""
    loss: Tensor | None = None
    """On the device, so that reading it waits; None in an evaluation."""


Watch = Callable[[StepReport], None]
"""Called on every rank after every step."""


@dataclass(frozen=True, slots=True)
class Options:
    """Where and how a stage runs; nothing here changes its result's name."""

    device: str = "auto"
    num_workers: int = 0
    eval_every: int = 1
    """Epochs between evaluations on the validation split; the last epoch is always evaluated."""
    save_every_s: float = 300.0
    """Seconds between states saved inside an epoch. One is saved after every epoch too."""
    deterministic: bool = False
    """On a GPU, take kernels that give the same bits in every run, which may be slower; CPUs' do so anyway."""
