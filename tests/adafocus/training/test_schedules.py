"""How a stage's learning rate changes over its epochs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

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


@st.composite
def warm_ups(draw: st.DrawFn) -> OptimConfig:
    epochs = draw(st.integers(1, 50))
    return OptimConfig(
        epochs=epochs,
        warmup_epochs=draw(st.floats(0, epochs, exclude_max=True)),
        schedule=draw(st.sampled_from(["cosine", "cosine_step", "step", "constant"])),
        milestones=tuple(draw(st.lists(st.integers(0, epochs), max_size=3))),
    )


@given(warm_ups(), st.integers(1, 7))
@example(OptimConfig(epochs=15, warmup_epochs=0.5, schedule="cosine"), 4)
def test_a_warm_up_rises_linearly_to_its_schedule(settings: OptimConfig, steps: int) -> None:
    plain, end = replace(settings, warmup_epochs=0.0), settings.warmup_epochs
    peak = lr_factor(plain, int(end), end - int(end))
    assume(peak > 0)  # a cosine's last moment may be a rate of nothing, to which nothing can rise
    before = 0.0
    for number in range(settings.epochs * steps):
        epoch, fraction = number // steps, number % steps / steps
        now, factor = epoch + fraction, lr_factor(settings, epoch, fraction)
        assert 0 < factor <= 1
        if now < end:
            assert before <= factor <= peak
            if number:
                assert factor == pytest.approx(peak * now / end)
        else:
            assert factor == lr_factor(plain, epoch, fraction) <= peak, "and does not jump up behind it"
        before = factor
