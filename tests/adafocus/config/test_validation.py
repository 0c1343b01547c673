"""Settings out of bounds, and settings that do not fit each other, are refused at once in one line."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adafocus.config.overrides import flatten, override, requirement, schema_of
from adafocus.config.schema import Config
from adafocus.methods import check
from pipelines.recipes import RECIPES
from preprocessing.schema import UserError

FLAT = flatten(Config())
LIMITS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")


def number_of(key: str) -> dict[str, Any]:
    """The JSON Schema of the number that a setting is, or of each number that it holds."""
    schema = dict(schema_of(key))
    schema = next((each for each in schema.get("anyOf", [schema]) if each["type"] != "null"), schema)
    return dict(schema.get("items", schema))


NUMBERS = [key for key in FLAT if number_of(key).get("type") in ("integer", "number")]


def changed(key: str, value: Any) -> Config:
    return override(Config(), {key: (value,) if isinstance(FLAT[key], tuple) else value})


def test_every_number_has_a_lower_bound() -> None:
    """None and tuples stand for numbers too."""
    numbers = {key for key, value in FLAT.items() if not isinstance(value, str | bool)} - {"method"}
    assert numbers == set(NUMBERS)
    assert all({"minimum", "exclusiveMinimum"} & number_of(key).keys() for key in NUMBERS)


@pytest.mark.parametrize("key", NUMBERS)
def test_values_are_held_to_their_bounds(key: str) -> None:
    schema = number_of(key)
    step = 1 if schema["type"] == "integer" else 1e-3
    for name in schema.keys() & set(LIMITS):
        outward = -step if name.lower().endswith("minimum") else step
        limit = schema[name]
        for value in (limit, limit - outward):
            if value != limit or name in ("minimum", "maximum"):
                assert changed(key, value)
        for value in (limit + outward, *([limit] if name.startswith("exclusive") else [])):
            with pytest.raises(UserError) as caught:
                changed(key, value)
            assert str(caught.value).startswith(f"{key} is ") and requirement(key) in str(caught.value)
    for value in (math.nan, math.inf, -math.inf, "inf", "nan"):
        with pytest.raises(UserError, match=f"^{key} is "):
            changed(key, value)


ANYTHING = st.one_of(
    st.text(max_size=30),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.sampled_from(["inf", "-1", "1e3", "1e400", "0.5", "none", "true", "1,2", "1,,x", ",", "9" * 5000, b"1"]),
    st.lists(st.one_of(st.floats(), st.integers(), st.text(max_size=5)), max_size=3),
)


@settings(max_examples=600, deadline=None)
@given(key=st.sampled_from(list(FLAT)), value=ANYTHING)
def test_any_value_is_taken_or_refused_in_one_line(key: str, value: Any) -> None:
    try:
        config = override(Config(), {key: value})
    except UserError as error:
        text = str(error)
        assert text.startswith(f"{key} is ") and "has to be" in text and len(text) < 400
        return
    assert override(Config(), {key: flatten(config)[key]}) == config, "what was taken is taken again"
    hash(config)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ppo.accumulate": 3}, "ppo.batch_size is 64, but has to be a multiple of ppo.accumulate = 3"),
        (
            {"warmup.warmup_epochs": 5, "warmup.epochs": 5},
            "warmup.warmup_epochs is 5, but has to be below warmup.epochs = 5",
        ),
        ({"data.resize": 200}, "data.crop is 224, but has to be at most data.resize = 200"),
        ({"model.patch_size": 225}, "model.patch_size is 225, but frames have data.crop = 224 pixels a side"),
        ({"data.num_focus_frames": 8}, "data.num_focus_frames is 8, but both networks see the same data.num_frames"),
        ({"data.focus_frames": "own"}, "model.action_per is frame, but the focuser's frames are not the glancer's"),
        ({"data.crop_scales": ()}, "has to be one or more values"),
        ({"model.dropout": 3}, "model.dropout is 3, but has to be a number, at least 0 and below 1"),
        ({"ppo.gamma": "7"}, "ppo.gamma is 7, but has to be a number, at least 0 and at most 1"),
        ({"model.grid_size": 1}, "model.grid_size is 1, but has to be a whole number, at least 2"),
        ({"model.action_std": 0}, "model.action_std is 0, but has to be a number, above 0"),
        ({"method": "adafocs"}, "unknown method 'adafocs'; the nearest known one is 'adafocus'"),
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
