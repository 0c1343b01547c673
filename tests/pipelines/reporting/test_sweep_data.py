"""What a sweep's page says of its trials: importance of settings, and how far it can be trusted."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from pipelines.reporting.sweep_data import ENOUGH_TRIALS, importance, plain_value
from pipelines.visualize.sweep_page import PlottedTrial


def trials(count: int, outcome: str = "finished") -> list[PlottedTrial]:
    """The score follows the learning rate's logarithm, a little the patch size, and not the action."""
    made, draw = [], random.Random(0)
    for number in range(count):
        lr, patch = 10 ** draw.uniform(-5, -1), draw.choice((64, 96))
        action = draw.choice(("grid", "gauss", "other"))
        score = 80 + 6 * math.log10(lr) + (patch == 96)
        values = {"ppo.lr": lr, "patch": patch, "action": action, "same": 1}
        made.append(PlottedTrial(str(number), outcome, "", score, values, 1.0, 1.0, ""))
    return made


def test_what_decides_the_score_is_most_important() -> None:
    found = importance(trials(ENOUGH_TRIALS))
    assert found.shares.keys() == {"ppo.lr", "patch", "action"} and not found.warning
    assert sum(found.shares.values()) == pytest.approx(1) and found.shares["ppo.lr"] > 0.8
    assert found == importance(trials(ENOUGH_TRIALS)), "it is not drawn anew each time"


def test_values_of_several_kinds_and_trials_without_a_score_or_a_setting() -> None:
    """Such as a dropout that is `none` or a number; sweeps that were continued have trials of other settings."""
    mixed = trials(ENOUGH_TRIALS)
    for number, trial in enumerate(mixed):
        trial.values["model.head_dropout"] = plain_value((None, 0.2, 3)[number % 3])
    found = importance([*mixed, replace(mixed[0], score=math.nan), replace(mixed[1], score=None)])
    assert found.shares.keys() == {"ppo.lr", "patch", "action", "model.head_dropout"}
    assert found.shares["ppo.lr"] > 0.8
    del mixed[3].values["patch"]
    assert "patch" not in importance(mixed).shares


def test_few_trials_come_with_a_warning() -> None:
    assert "only 8 finished trials" in importance(trials(8)).warning
    for few in (trials(3), trials(8, "pruned"), [], trials(1) * 8):
        found = importance(few)
        assert not found.shares and "too few" in found.warning


def test_values_that_are_no_numbers_are_texts() -> None:
    assert [plain_value(value) for value in (1, 0.5, True, None, "grid", [1, 2])] == [
        *(1, 0.5, "True", "None", "grid", "[1, 2]")
    ]
