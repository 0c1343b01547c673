"""Distributions that a search space may name: how many arguments each takes, what is a legal range, and a draw."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from preprocessing.schema import UserError

Draw = Callable[[np.random.Generator, list[Any]], Any]
DISTRIBUTIONS: dict[str, tuple[int | None, Draw]] = {
    "uniform": (2, lambda rng, a: float(rng.uniform(a[0], a[1]))),
    "loguniform": (2, lambda rng, a: float(np.exp(rng.uniform(math.log(a[0]), math.log(a[1]))))),
    "quniform": (3, lambda rng, a: float(round(rng.uniform(a[0], a[1]) / a[2]) * a[2])),
    "randint": (2, lambda rng, a: int(rng.integers(int(a[0]), int(a[1])))),
    "choice": (None, lambda rng, a: a[int(rng.integers(len(a)))]),
}
"""Name -> how many numbers it takes (None: any values), and a draw from it. As in Ray Tune, `randint` leaves its upper
end out and the third number of `quniform` is the step."""


def draw(name: str, arguments: list[Any], rng: np.random.Generator) -> Any:
    """A random value."""
    return DISTRIBUTIONS[name][1](rng, arguments)


def check_distribution(key: str, name: str, arguments: list[Any]) -> None:
    """Raise UserError for an unknown name, a wrong number of arguments, and numbers that are no range."""
    if name not in DISTRIBUTIONS:
        raise UserError(f"{key}: unknown distribution {name!r}; known: {', '.join(DISTRIBUTIONS)}")
    count, _ = DISTRIBUTIONS[name]
    if count is not None and len(arguments) != count:
        raise UserError(f"{key}: {name} takes {count} numbers, not {len(arguments)}")
    if count is not None and not _is_range(name, arguments):
        raise UserError(f"{key}: {name}:{':'.join(map(str, arguments))} is no range, from small to large")


def extreme_values(name: str, arguments: list[Any]) -> list[Any]:
    """The least and the greatest value that is drawn; of a choice all values."""
    if name == "choice":
        return arguments
    low, high = arguments[:2]
    if name == "quniform":
        return [round(end / arguments[2]) * arguments[2] for end in (low, high)]
    return [low, high - 1 if name == "randint" else math.nextafter(high, low)]


def _is_range(name: str, arguments: list[float]) -> bool:
    """Are the numbers a range: from small to large, above 0 for a logarithm, in steps above 0, whole for
    randint, and not beyond 64 bits?"""
    low, high, *step = arguments
    if not all(math.isfinite(each) for each in arguments) or not low < high or any(each <= 0 for each in step):
        return False
    whole = low == int(low) and high == int(high) and low >= -(2**63) and high < 2**63
    return {"loguniform": low > 0, "randint": whole}.get(name, True)
