"""Numbers outside their bounds are refused at once, in one line that names key, value and bound."""

from __future__ import annotations

import math
from typing import Any

import pytest

from adafocus.config.schema import Config, flatten, override
from adafocus.config.validation import BOUNDS, Bound, check
from pipelines.recipes.recipes import RECIPES
from preprocessing.schema import UserError

FLAT = flatten(Config())
WHOLE = {key for key, value in FLAT.items() if isinstance(value, int)} | {
    key for key in FLAT if key.endswith((".lr_batch_size", ".milestones"))
}


def around(key: str, bound: Bound) -> tuple[list[float], list[float]]:
    """Values of a setting just inside and just outside its bound."""
    step = 1 if key in WHOLE else 1e-3
    inside, outside = [bound.low + step], [bound.low - step]
    (inside if bound.with_low else outside).append(bound.low)
    if math.isfinite(bound.high):
        inside.append(bound.high - step)
        outside.append(bound.high + step)
        (inside if bound.with_high else outside).append(bound.high)
    if key not in WHOLE:
        outside += [math.nan, math.inf]
    return inside, outside


def changed(key: str, value: float) -> Config:
    given: Any = (value,) if isinstance(FLAT[key], tuple) else value
    return override(Config(), {key: given})


def test_every_number_has_a_bound() -> None:
    """None and tuples stand for numbers too."""
    assert {key for key, value in FLAT.items() if not isinstance(value, str | bool)} == BOUNDS.keys()


@pytest.mark.parametrize("key", BOUNDS)
def test_values_are_held_to_their_bound(key: str) -> None:
    inside, outside = around(key, BOUNDS[key])
    for value in inside:
        try:
            check(changed(key, value))
        except UserError as error:  # another setting may forbid it, as a crop larger than the frame
            assert f"has to be {BOUNDS[key]}" not in str(error)
    for value in outside:
        with pytest.raises(UserError) as caught:
            check(changed(key, value))
        assert str(caught.value) == f"{key} is {value:g}, but has to be {BOUNDS[key]}"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ppo.accumulate": 3}, "ppo.batch_size is 64, but has to be a multiple of ppo.accumulate = 3"),
        (
            {"warmup.warmup_epochs": 5, "warmup.epochs": 5},
            "warmup.warmup_epochs is 5, but has to be below warmup.epochs = 5",
        ),
        ({"data.resize": 200}, "data.crop is 224, but has to be at most data.resize = 200"),
        ({"model.patch_size": 225}, "model.patch_size is 225, but frames have 224"),
        ({"data.num_focus_frames": 8}, "data.num_focus_frames is 8, but the untrimmed family's"),
        ({"data.crop_scales": ()}, "data.crop_scales is empty"),
        ({"model.dropout": 3}, "model.dropout is 3, but has to be at least 0 and below 1"),
        ({"ppo.gamma": "7"}, "ppo.gamma is 7, but has to be at least 0 and at most 1"),
        ({"model.grid_size": 1}, "model.grid_size is 1, but has to be at least 2"),
        ({"model.action_std": 0}, "model.action_std is 0, but has to be above 0"),
    ],
)
def test_settings_that_would_fail_late_fail_at_once(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        check(override(Config(), changes))
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_are_inside(recipe: str) -> None:
    config = RECIPES[recipe]()
    assert check(config) is config
