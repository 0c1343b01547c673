"""How a stage's learning rate changes over its epochs."""

from __future__ import annotations

import pytest

from adafocus.config.schema import OptimConfig
from adafocus.training.schedules import lr_factor


@pytest.mark.parametrize(
    ("schedule", "epoch", "fraction", "factor"),
    [
        ("constant", 3, 0.5, 1.0),
        ("cosine", 0, 0.9, 1.0),
        ("cosine", 5, 0.9, 0.5),
        ("cosine_step", 5, 0.0, 0.5),
        ("cosine_step", 9, 1.0, 0.0),
        ("step", 1, 0.9, 1.0),
        ("step", 2, 0.0, 0.1),
        ("step", 8, 0.5, 0.01),
    ],
)
def test_learning_rate(schedule: str, epoch: int, fraction: float, factor: float) -> None:
    settings = OptimConfig(epochs=10, schedule=schedule, milestones=(2, 4))
    assert lr_factor(settings, epoch, fraction) == pytest.approx(factor, abs=1e-9)


def test_learning_rate_rises_linearly_at_the_start() -> None:
    settings = OptimConfig(epochs=10, warmup_epochs=2, schedule="constant")
    assert [lr_factor(settings, epoch, half) for epoch, half in ((0, 0.5), (1, 0), (1, 0.5), (2, 0))] == [
        0.25,
        0.5,
        0.75,
        1.0,
    ]
