"""What others have published on the benchmarks: one data file in, rows with their sources out."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal, cast

import yaml

Mark = Literal["T", "D"]
MARKS: dict[Mark, str] = {"T": "printed in a table", "D": "read off a plot"}
"""How a figure is known. Others are not kept."""


@dataclass(frozen=True, slots=True)
class Published:
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
def published() -> dict[str, tuple[Published, ...]]:
    """All rows, by data set."""
    document = yaml.safe_load((files("pipelines.reporting") / "published.yaml").read_text())
    sources = document.pop("sources")
    return {
        dataset: tuple(_row(values, sources) for values in entry["rows"])
        for dataset, entry in cast(dict[str, dict[str, list[list[str]]]], document).items()
    }


def rows_of(dataset: str) -> tuple[Published, ...]:
    """Published results on a data set; none for one that is no benchmark."""
    return published().get(dataset, ())


def _row(values: list[str], sources: dict[str, str]) -> Published:
    family, method, accuracy, accuracy_mark, gflops, gflops_mark, source, *recipe = values
    return Published(
        family=family,
        method=method,
        accuracy=float(accuracy),
        accuracy_mark=cast(Mark, accuracy_mark),
        gflops=float(gflops),
        gflops_mark=cast(Mark, gflops_mark),
        source=sources[source],
        recipe=recipe[0] if recipe else None,
    )
