"""The search space of a sweep: dotted configuration keys with their values or distributions, and the points in it."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adafocus.config.overrides import flatten, override
from adafocus.config.schema import Config
from adafocus.config.validation import TOGETHER
from adafocus.methods import check, method_of
from adafocus.methods.identity import stage_key
from pipelines.sweeps.search.distributions import check_distribution, draw, extreme_values
from preprocessing.schema import UserError

Point = dict[str, Any]
"""What one trial changes of the sweep's configuration: dotted keys and values."""


@dataclass(frozen=True, slots=True)
class Space:
    """The settings that differ between trials: every combination of the values in `grid` is tried, for each draw from
    the distributions in `sample`.

    Values have the types of their settings: `typed` makes them so.
    """

    grid: dict[str, list[Any]] = field(default_factory=dict)
    sample: dict[str, tuple[str, list[Any]]] = field(default_factory=dict)
    """Key -> name of a distribution and its arguments."""

    @property
    def keys(self) -> set[str]:
        """The configuration keys that differ between trials."""
        return {*self.grid, *self.sample}

    def typed(self, config: Config) -> Space:
        """The same space with values of the settings' own types, such as 0.7 for the text "0.7".

        Raises UserError for an unknown key, and for a value that its setting cannot have.
        """
        grid = {key: [typed_value(config, key, value) for value in values] for key, values in self.grid.items()}
        sample = {
            key: (name, [typed_value(config, key, value) for value in values] if name == "choice" else values)
            for key, (name, values) in self.sample.items()
        }
        return Space(grid, sample)

    def texts(self) -> dict[str, str]:
        """Each key with its values in words."""
        drawn = {key: f"{name}({', '.join(map(show_value, values))})" for key, (name, values) in self.sample.items()}
        return {**{key: ", ".join(map(show_value, values)) for key, values in self.grid.items()}, **drawn}

    def check(self, config: Config) -> None:
        """Raise UserError for an unknown key or a value that does not fit it, before anything is started."""
        if "method" in self.keys:
            raise UserError("a sweep is of one method: start a sweep for each, by --set method=NAME")
        twice = sorted(self.grid.keys() & self.sample.keys())
        if twice:
            raise UserError(f"{twice[0]} is in the grid and drawn too: take one of the two out")
        for key, values in self.grid.items():
            for value in values:
                self._check_value(config, key, value)
        for key, (name, arguments) in self.sample.items():
            check_distribution(key, name, arguments)
            for value in extreme_values(name, arguments):
                self._check_value(config, key, value)

    def _check_value(self, config: Config, key: str, value: Any) -> None:
        changed = override(config, {key: value})
        # Where several settings that have to fit each other differ, a trial says which of its own do not.
        if len(self.keys & TOGETHER) <= 1:
            check(changed)

    def points(self, config: Config, num_samples: int) -> list[Point]:
        """The trials of a grid or random search, each once: the whole grid for each of `num_samples` draws.

        Drawn from `config.seed`, one after the other: a larger `num_samples` adds to the same points.
        """
        rng = np.random.default_rng((config.seed, 0xADA))
        points: dict[Config, Point] = {}
        for _ in range(num_samples):
            for values in itertools.product(*self.grid.values()):
                point = dict(zip(self.grid, values, strict=True))
                for key, (name, arguments) in self.sample.items():
                    point[key] = typed_value(config, key, draw(name, arguments, rng))
                points.setdefault(override(config, point), point)
        return list(points.values())


def typed_value(config: Config, key: str, value: Any) -> Any:
    """A value as its setting's own type. Raises UserError if the setting is unknown or cannot have it."""
    return flatten(override(config, {key: value}))[key]


def typed_point(config: Config, point: Point) -> Point:
    """The same of all values of a point, such as one read from a file."""
    return {key: typed_value(config, key, value) for key, value in point.items()}


def show_value(value: Any) -> str:
    """A setting's value as one would write it on the command line."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(show_value, value)) if isinstance(value, tuple) else str(value)


def show_point(point: Point) -> str:
    """A point in words, such as `gamma=0.7 lr=0.0003`, with whole keys where two end alike."""
    texts = {key: f"{value:.4g}" if isinstance(value, float) else show_value(value) for key, value in point.items()}
    ends = Counter(key.split(".")[-1] for key in point)
    names = {key: key if ends[key.split(".")[-1]] > 1 else key.split(".")[-1] for key in point}
    return " ".join(f"{names[key]}={value}" for key, value in texts.items()) or "single"


def order_for_sharing(points: list[Point], config: Config, version: str) -> list[Point]:
    """The points in the order that makes trials which run side by side wait least for a stage that they share.

    First one of each group that shares its late stages, then the second ones, which find those stages finished.
    """
    counts: dict[str, int] = {}

    def ranks(point: Point) -> tuple[int, ...]:
        """For each stage, the last one first, how many points before this one share it."""
        own, ranks = override(config, point), []
        for stage in reversed(method_of(own).stage_names):
            key = stage_key(own, stage, version)
            ranks.append(counts.get(key, 0))
            counts[key] = ranks[-1] + 1
        return tuple(ranks)

    return [point for _, point in sorted(((ranks(point), point) for point in points), key=lambda pair: pair[0])]
