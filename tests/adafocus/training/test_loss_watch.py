"""Losses that are not finite stop training, with the names of the clips."""

from __future__ import annotations

import math

import pytest
import torch

from adafocus.training.loss_watch import CHECK_EVERY, LossWatch, NonFiniteLossError


def test_watch_names_the_batch() -> None:
    watch = LossWatch()
    watch.add(torch.tensor(1.0), ["fine"])
    watch.add(torch.tensor(math.inf), ["bad", "worse"])
    with pytest.raises(NonFiniteLossError, match="the loss is inf on the batch of clips bad, worse"):
        watch.check()


def test_losses_are_looked_at_now_and_then() -> None:
    watch = LossWatch()
    with pytest.raises(NonFiniteLossError, match="clips 7"):
        for step in range(CHECK_EVERY):
            for part in range(3):  # micro-batches, or passes
                watch.add(torch.tensor(math.nan if (step, part) == (7, 2) else 1.0), [str(step)])
            watch.end_step()
    assert step == CHECK_EVERY - 1
