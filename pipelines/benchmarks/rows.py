"""Rows of a benchmark's table: which ones there are, and the numbers of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adafocus.config.schema import Precision
from adafocus.evaluation.evaluate import PatchSource

Weights = Literal["own", "warmup"]
"""The checkpoint's own weights, or those of the warm-up stage that it came from."""


@dataclass(frozen=True, slots=True)
class RowKind:
    """A row that a benchmark measures if its weights are there and its parts are trained."""

    label: str
    """`{title}` stands for the method's."""
    weights: Weights
    patches: PatchSource


BENCHMARK_ROWS = (
    RowKind("policy ({title})", "own", "policy"),
    RowKind("random, same weights", "own", "random"),
    RowKind("centre, same weights", "own", "centre"),
    RowKind("oracle: around the object's own box, same weights", "own", "oracle"),
    RowKind("random, warm-up weights", "warmup", "random"),
    RowKind("none: glancer alone", "own", "glancer"),
)

PROBES: tuple[tuple[Literal["glancer", "focuser"], PatchSource], ...] = (("glancer", "glancer"), ("focuser", "whole"))
"""Networks on whose features of whole frames classifiers are fitted, each with the source that selects it."""


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """The numbers of one row. Percentages, GFLOPs (multiply-adds) per video, videos per second."""

    method: str
    """The row's label: where patches come from, and what was done to the networks."""
    patches: str
    precision: Precision
    """Of the image networks; policy and classifier are in float32."""
    compiled: bool
    """Were the image networks?"""
    top1: float
    top5: float
    map: float
    hit_rate: float | None
    gflops: float
    parameters: int
    """Of the parts that the method uses."""
    videos_per_s: float
    latency_ms: float
    """One video at a time."""
    memory_mb: float | None
    """Most that the batch and what is made of it take at one time; beside the weights. None of compiled networks, for
    what happens inside them cannot be seen."""
    online: list[dict[str, float]]
    """frames, gflops (where a prefix costs its share), map, top1, top5 after each frame."""
    covered: float | None = None
    """Percent of the object's box that lies in the patch, in the mean."""

    def key(self) -> str:
        """The row's name in the names of metrics and files."""
        name = "warmup_random" if "warm-up" in self.method else self.patches
        name = name if self.precision == "float32" else f"{name}_{self.precision}"
        return f"{name}_compiled" if self.compiled else name
