"""Published results on the paper's data sets, with their sources, read from published.yaml."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal, cast

import yaml

Mark = Literal["T", "D"]
MARKS: dict[Mark, str] = {"T": "printed in a table", "D": "read off a plot"}
"""How a figure is known; figures known in other ways are not kept."""


@dataclass(frozen=True, slots=True)
class PublishedResult:
    """One published result."""

    family: str
    """AdaFocus, AdaFocus+, AdaFocusV2, Uni-AdaFocus or baseline."""
    method: str
    accuracy: float
    """The data set's metric, in percent."""
    accuracy_mark: Mark
    gflops: float
    """Multiply-adds (10^9) per video."""
    gflops_mark: Mark
    source: str
    """Table and publication, in words."""
    recipe: str | None
    """Our recipe of this experiment, if there is one."""


@functools.cache
def published_results() -> dict[str, tuple[PublishedResult, ...]]:
    """All rows, by data set."""
    document = yaml.safe_load((files("pipelines.reporting") / "published.yaml").read_text("utf-8"))
    sources = document.pop("sources")
    return {
        dataset: tuple(_row(values, sources) for values in entry["rows"])
        for dataset, entry in cast(dict[str, dict[str, list[list[str]]]], document).items()
    }


def published_on(dataset: str) -> tuple[PublishedResult, ...]:
    """The results on a data set; none for a data set that is not the paper's."""
    return published_results().get(dataset, ())


def _row(values: list[str], sources: dict[str, str]) -> PublishedResult:
    family, method, accuracy, accuracy_mark, gflops, gflops_mark, source, *recipe = values
    return PublishedResult(
        family=family,
        method=method,
        accuracy=float(accuracy),
        accuracy_mark=cast(Mark, accuracy_mark),
        gflops=float(gflops),
        gflops_mark=cast(Mark, gflops_mark),
        source=sources[source],
        recipe=recipe[0] if recipe else None,
    )
