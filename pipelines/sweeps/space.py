"""The search space of a sweep: dotted configuration keys with their values or distributions, and the points in it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from adafocus.config.schema import STAGES, Config, override, stage_key
from adafocus.config.validation import TOGETHER, check, check_bounds
from pipelines.paths import absolute_setting
from preprocessing.schema import UserError

RECIPE = "recipe"
"""Instead of a file: the space that comes with the recipe."""

Draw = Callable[[np.random.Generator, list[Any]], Any]
SAMPLERS: dict[str, tuple[int | None, Draw]] = {
    "uniform": (2, lambda rng, a: float(rng.uniform(a[0], a[1]))),
    "loguniform": (2, lambda rng, a: float(np.exp(rng.uniform(math.log(a[0]), math.log(a[1]))))),
    "quniform": (3, lambda rng, a: float(round(rng.uniform(a[0], a[1]) / a[2]) * a[2])),
    "randint": (2, lambda rng, a: int(rng.integers(int(a[0]), int(a[1])))),
    "choice": (None, lambda rng, a: a[int(rng.integers(len(a)))]),
}
"""Distributions that a space may name, how many numbers each takes (None: any values), and a draw from it. As in Ray
Tune, `randint` leaves its upper end out and the third number of `quniform` is the step."""

Point = dict[str, Any]
"""What one trial changes of the sweep's configuration: dotted keys and values."""


@dataclass(frozen=True, slots=True)
class Space:
    """`grid`: every combination is tried. `sample`: drawn anew for each of `num_samples`."""

    grid: dict[str, list[Any]] = field(default_factory=dict)
    sample: dict[str, tuple[str, list[Any]]] = field(default_factory=dict)

    @property
    def keys(self) -> set[str]:
        """The configuration keys that differ between trials."""
        return {*self.grid, *self.sample}

    def shown(self) -> dict[str, str]:
        """Each key with its values in words."""
        drawn = {key: f"{name}({', '.join(map(str, values))})" for key, (name, values) in self.sample.items()}
        return {**{key: ", ".join(map(str, values)) for key, values in self.grid.items()}, **drawn}

    def check(self, config: Config) -> None:
        """Raise UserError for an unknown key or a value that does not fit it, before anything is started."""
        # Where several settings that have to fit each other differ, a trial says which of its own do not.
        fits = check_bounds if len(self.keys & TOGETHER) > 1 else check
        twice = sorted(self.grid.keys() & self.sample.keys())
        if twice:
            raise UserError(f"{twice[0]} is in the grid and drawn too: take one of the two out")
        for key, values in self.grid.items():
            for value in values:
                fits(override(config, {key: value}))
        for key, (sampler, arguments) in self.sample.items():
            if sampler not in SAMPLERS:
                raise UserError(f"{key}: unknown distribution {sampler!r}; known: {', '.join(SAMPLERS)}")
            wanted, _ = SAMPLERS[sampler]
            if wanted is not None and len(arguments) != wanted:
                raise UserError(f"{key}: {sampler} takes {wanted} numbers, not {len(arguments)}")
            if wanted is not None and not _is_range(sampler, arguments):
                raise UserError(f"{key}: {sampler}:{':'.join(map(str, arguments))} is no range, from small to large")
            for value in arguments if wanted is None else _ends(sampler, arguments):
                fits(override(config, {key: value}))

    def points(self, config: Config, num_samples: int) -> list[Point]:
        """The trials of a grid or random search, each once: the whole grid for each of `num_samples` draws.

        Drawn from `config.seed`, one after the other: a larger `num_samples` adds to the same points.
        """
        rng = np.random.default_rng((config.seed, 0xADA))
        found: dict[Config, Point] = {}
        for _ in range(num_samples):
            for values in itertools.product(*self.grid.values()):
                point = dict(zip(self.grid, values, strict=True))
                for key, (sampler, arguments) in self.sample.items():
                    point[key] = SAMPLERS[sampler][1](rng, arguments)
                found.setdefault(override(config, point), point)
        return list(found.values())


def _ends(sampler: str, arguments: list[Any]) -> tuple[float, float]:
    """The least and the greatest value that is drawn."""
    low, high = arguments[:2]
    if sampler == "quniform":
        return round(low / arguments[2]) * arguments[2], round(high / arguments[2]) * arguments[2]
    return low, high - 1 if sampler == "randint" else math.nextafter(high, low)


def spread(points: list[Point], config: Config, digest: str) -> list[Point]:
    """The points in the order that makes trials which run side by side wait least for a stage that they share.

    First one of each group that shares its late stages, then the second ones, which find those stages finished.
    """
    seen: dict[str, int] = {}

    def place(point: Point) -> tuple[int, ...]:
        own, places = override(config, point), []
        for stage in reversed(STAGES):
            key = stage_key(own, stage, digest)
            places.append(seen.get(key, 0))
            seen[key] = places[-1] + 1
        return tuple(places)

    return [point for _, point in sorted(((place(point), point) for point in points), key=lambda pair: pair[0])]


def parse(grid: list[str], sample: list[str], file: Path | None = None) -> Space:
    """Read `--grid key=v1,v2`, `--sample key=loguniform:1e-5:1e-3`, and a YAML file with maps `grid` and `sample`.

    A key on the command line replaces the file's. Raises UserError for anything else.
    """
    grids: dict[str, list[Any]] = {}
    samples: dict[str, tuple[str, list[Any]]] = {}
    if file:
        try:
            document = yaml.safe_load(file.read_text()) or {}
            surplus = sorted(document.keys() - {"grid", "sample"})
            if surplus:
                raise TypeError(f"{surplus[0]!r} is neither `grid` nor `sample`")
            grids.update({key: _absolute(key, values) for key, values in (document.get("grid") or {}).items()})
            samples.update({key: _sampler(key, str(text)) for key, text in (document.get("sample") or {}).items()})
        except (OSError, yaml.YAMLError, AttributeError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"the space file {file} cannot be read: {reason}") from None
    for item in grid:
        key, values = _split(item, "--grid key=v1,v2")
        samples.pop(key, None)
        grids[key] = [absolute_setting(key, value) for value in values.split(",")]
    for item in sample:
        key, text = _split(item, "--sample key=loguniform:1e-5:1e-3")
        if key not in {_split(each, "")[0] for each in grid}:
            grids.pop(key, None)
        samples[key] = _sampler(key, text)
    return Space(grids, samples)


def recipe_space(recipe: str, config: Config) -> Path:
    """The space file that comes with a recipe: its own, else that of its family."""
    folder = Path(str(files("pipelines.sweeps") / "spaces"))
    own = folder / f"{recipe}.yaml"
    return own if own.is_file() else folder / f"{config.model.family}.yaml"


def _absolute(key: str, values: Iterable[Any]) -> list[Any]:
    """A file's values of a setting; names of weights files as absolute paths."""
    return [absolute_setting(key, value) if isinstance(value, str) else value for value in values]


def _split(item: str, form: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not equals or not key or not value:
        raise UserError(f"{item!r} is not of the form {form}")
    return key, value


def _is_range(sampler: str, arguments: list[float]) -> bool:
    """From small to large, above 0 for a logarithm, in steps above 0, and of whole numbers for these."""
    low, high, *step = arguments
    if not all(math.isfinite(each) for each in arguments) or not low < high or any(each <= 0 for each in step):
        return False
    return {"loguniform": low > 0, "randint": low == int(low) and high == int(high)}.get(sampler, True)


def _sampler(key: str, text: str) -> tuple[str, list[Any]]:
    name, *arguments = text.split(":")
    try:
        if name == "choice":
            return name, [absolute_setting(key, argument) for argument in arguments]
        return name, [float(argument) for argument in arguments]
    except ValueError:
        raise UserError(f"{key}: {text!r} needs numbers after the name of the distribution") from None
