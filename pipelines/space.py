"""The search space of a sweep: dotted configuration keys with their values or distributions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from adafocus.config import Config, override
from preprocessing.schema import UserError

SAMPLERS = {"uniform": 2, "loguniform": 2, "randint": 2, "quniform": 3, "choice": None}
"""Distributions of Ray Tune that a space may name, and how many numbers each takes (None: any)."""


@dataclass(frozen=True, slots=True)
class Space:
    """`grid`: every combination is tried. `sample`: drawn anew for each of `num_samples`."""

    grid: dict[str, list[Any]] = field(default_factory=dict)
    sample: dict[str, tuple[str, list[Any]]] = field(default_factory=dict)

    @property
    def keys(self) -> set[str]:
        """The configuration keys that differ between trials."""
        return {*self.grid, *self.sample}

    def check(self, config: Config) -> None:
        """Raise UserError for an unknown key or a value that does not fit it, before anything is started."""
        for key, values in self.grid.items():
            for value in values:
                override(config, {key: value})
        for key, (sampler, arguments) in self.sample.items():
            if sampler not in SAMPLERS:
                raise UserError(f"{key}: unknown distribution {sampler!r}; known: {', '.join(SAMPLERS)}")
            wanted = SAMPLERS[sampler]
            if wanted is not None and len(arguments) != wanted:
                raise UserError(f"{key}: {sampler} takes {wanted} numbers, not {len(arguments)}")
            override(config, {key: arguments[0]})


def parse(grid: list[str], sample: list[str], file: Path | None = None) -> Space:
    """Read `--grid key=v1,v2`, `--sample key=loguniform:1e-5:1e-3`, and a YAML file with maps `grid` and `sample`.

    Raises UserError for anything else.
    """
    grids: dict[str, list[Any]] = {}
    samples: dict[str, tuple[str, list[Any]]] = {}
    if file:
        try:
            document = yaml.safe_load(file.read_text()) or {}
            grids.update({key: list(values) for key, values in document.get("grid", {}).items()})
            samples.update({key: _sampler(key, str(text)) for key, text in document.get("sample", {}).items()})
        except (OSError, yaml.YAMLError, AttributeError, TypeError) as error:
            raise UserError(f"the space file {file} cannot be read: {error}") from None
    for item in grid:
        key, values = _split(item, "--grid key=v1,v2")
        grids[key] = values.split(",")
    for item in sample:
        key, text = _split(item, "--sample key=loguniform:1e-5:1e-3")
        samples[key] = _sampler(key, text)
    return Space(grids, samples)


def _split(item: str, form: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not equals or not key or not value:
        raise UserError(f"{item!r} is not of the form {form}")
    return key, value


def _sampler(key: str, text: str) -> tuple[str, list[Any]]:
    name, *arguments = text.split(":")
    try:
        return name, arguments if name == "choice" else [float(argument) for argument in arguments]
    except ValueError:
        raise UserError(f"{key}: {text!r} needs numbers after the name of the distribution") from None
