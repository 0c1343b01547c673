"""Search spaces as users write them: options of the command line, and YAML files."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from adafocus.config.schema import Config, whole_number
from pipelines.paths import absolute_setting
from pipelines.sweeps.search.space import Space
from pipelines.sweeps.search.space_file import read_space
from preprocessing.schema import UserError

RECIPE = "recipe"
"""Instead of a file: the space that comes with the recipe."""


def parse_space(config: Config, grid: list[str], sample: list[str], file: Path | None = None) -> Space:
    """Read `--grid key=v1,v2`, `--sample key=loguniform:1e-5:1e-3`, and a YAML file with maps `grid` and `sample`.

    A key on the command line replaces the file's. Values get the types of the settings of `config`. Raises UserError
    for anything else.
    """
    grids: dict[str, list[Any]] = {}
    samples: dict[str, tuple[str, list[Any]]] = {}
    if file:
        maps = read_space(file)
        try:
            grids.update({key: _absolute(key, values) for key, values in maps["grid"].items()})
            samples.update({key: _distribution(key, _one_text(key, text)) for key, text in maps["sample"].items()})
        except TypeError as error:
            raise UserError(f"the space file {file} cannot be read: {error}") from None
    for item in grid:
        key, values = _split(item, "--grid key=v1,v2")
        samples.pop(key, None)
        grids[key] = [absolute_setting(key, value) for value in values.split(",")]
    for item in sample:
        key, text = _split(item, "--sample key=loguniform:1e-5:1e-3")
        if key not in {_split(each, "")[0] for each in grid}:
            grids.pop(key, None)
        samples[key] = _distribution(key, text)
    return Space(grids, samples).typed(config)


def recipe_space(recipe: str, config: Config) -> Path:
    """The space file that comes with a recipe: its own, else that of all recipes of its method whose policy acts per
    frame, or per clip, as this one's does."""
    folder = Path(str(files("pipelines.sweeps.search") / "spaces"))
    own = folder / f"{recipe}.yaml"
    return own if own.is_file() else folder / f"{config.method}_per_{config.model.action_per}.yaml"


def _absolute(key: str, values: Any) -> list[Any]:
    """A file's values of a setting; names of weights files as absolute paths. Raises TypeError for anything but a list,
    such as a text, which is a row of letters too."""
    if not isinstance(values, list):
        raise TypeError(f"the values of {key} are no list: write [{values}]")
    if not values:
        raise TypeError(f"{key} has no values")
    return [absolute_setting(key, value) if isinstance(value, str) else value for value in values]


def _one_text(key: str, text: Any) -> str:
    """A file's distribution. Raises TypeError for anything but a text."""
    if not isinstance(text, str):
        raise TypeError(f"the distribution of {key} is no text such as loguniform:1e-5:1e-3")
    return text


def _split(item: str, form: str) -> tuple[str, str]:
    """Key and value of an option `key=value`."""
    key, equals, value = item.partition("=")
    if not equals or not key or not value:
        raise UserError(f"{item!r} is not of the form {form}")
    return key, value


def _distribution(key: str, text: str) -> tuple[str, list[Any]]:
    """Name and arguments of a distribution `name:argument:argument`."""
    name, *arguments = text.split(":")
    try:
        if name == "choice":
            return name, [absolute_setting(key, argument) for argument in arguments]
        whole = [whole_number(argument) for argument in arguments if name == "randint"]
        return name, [float(argument) for argument in arguments] if None in whole or not whole else whole
    except ValueError:
        raise UserError(f"{key}: {text!r} needs numbers after the name of the distribution") from None
