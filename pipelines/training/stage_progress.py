"""The progress of a configuration through its stages: speed, loss, memory, and how long the rest will take."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from adafocus.training.reports import StepReport, Watch
from pipelines.progress import Report, progress, span

INTERVAL_S = 60.0
"""Seconds between two lines in a log."""


@contextmanager
def stage_progress(epochs: int, later_epochs: int = 0, name: str = "") -> Iterator[Watch]:
    """Show the progress of a stage of so many epochs, to whose steps the result listens; `name`: of the trial.

    `later_epochs` are those of the stages that follow, which are taken to be as long as the ones of this stage.
    """
    with ExitStack() as shown:
        yield StageProgress(shown, epochs, later_epochs, name).watch


class StageProgress:
    """What is known of a stage that is being trained."""

    def __init__(self, shown: ExitStack, epochs: int, later_epochs: int, name: str) -> None:
        """`shown`: what is shown until it is closed."""
        self._shown, self._epochs, self._later, self._name = shown, epochs, later_epochs, name
        self._report: Report | None = None
        self._began = self._since = time.monotonic()
        self._start = self._done = 0.0
        self._clips = 0

    def watch(self, at: StepReport) -> None:
        """Take note of a step, and show it if it is time to."""
        trained = at.doing == "training"
        done = at.epoch - 1 + at.step / at.steps if trained else float(at.epoch)
        if self._report is None:  # a stage that goes on has not done what was done before in this time
            self._start = self._done = done - (1 / at.steps if trained else 0)
            what = "this stage" if self._later else ""
            bar = progress(self._epochs - self._start, interval_s=INTERVAL_S, what=what)
            self._report = self._shown.enter_context(bar)
        amount, self._done = max(done - self._done, 0.0), max(done, self._done)
        self._clips += at.clips
        self._report(amount, lambda: self._text(at))

    def _text(self, at: StepReport) -> str:
        now = time.monotonic()
        speed, self._clips, self._since = self._clips / max(now - self._since, 1e-9), 0, now
        stage = f"{self._name}: {at.stage}" if self._name else at.stage
        where = f"step {at.step} of {at.steps}" if at.doing == "training" else f"evaluating, {at.step} of {at.steps}"
        loss = "" if at.loss is None else f", loss {float(at.loss):.4g}"
        return (
            f"{stage}, epoch {at.epoch} of {at.epochs}, {where}: {speed:.3g} clips/s{loss}, "
            f"{peak_memory() / 1e6:.0f} MB{self._all_left(now)}"
        )

    def _all_left(self, now: float) -> str:
        """How long all stages will take, if others follow; empty before anything is known."""
        done = self._done - self._start
        if not self._later or done <= 0:
            return ""
        left = (now - self._began) / done * (self._epochs - self._done + self._later)
        return f", all stages {span(left)} left"


def peak_memory() -> int:
    """Most bytes that this process has taken so far: of the GPU where it uses one, else of main memory."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
