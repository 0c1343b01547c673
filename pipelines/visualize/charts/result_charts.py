"""Charts of results: accuracy over compute, accuracy after each frame, rewards. Numbers in, matplotlib figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipelines.visualize.charts.figure import BLUE, GREY, INK, OCHRE, RED, TEAL, VIOLET, new_figure

PALETTE = (BLUE, RED, TEAL, VIOLET, OCHRE, GREY)
SOURCES = {
    "centre": "centre of the frame",
    "oracle": "around the object's own box",
    "glancer": "none: glancer alone",
    "warmup_random": "random, warm-up weights",
}
"""Sources of patches whose own names say too little, in words."""
FAMILIES = {"AdaFocus": BLUE, "AdaFocus+": TEAL, "AdaFocusV2": VIOLET, "Uni-AdaFocus": OCHRE}
"""Colours of the published methods."""


@dataclass(frozen=True, slots=True)
class ResultPoint:
    """A result in the plane of accuracy (percent) over compute (GFLOPs per video)."""

    label: str
    gflops: float
    accuracy: float
    family: str = ""
    """Of a published result; empty for one that was measured here."""


def reward_chart(steps: Sequence[int], rewards: Sequence[float], by_time: Mapping[int, Sequence[float]]) -> Figure:
    """The policy's mean reward over epochs, and beside it by time step, from the first epoch to the last.

    `by_time`: for each epoch the rewards of the T steps of a clip.
    """
    figure, (axes, time_axes) = new_figure(11, 4, columns=(1, 1))
    axes.plot(steps, rewards, marker="o", markersize=4, color=BLUE)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set(xlabel="epoch", ylabel="mean reward", title="reward")
    epochs = sorted(by_time)
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.85, max(len(epochs), 1)))
    for epoch, colour in zip(epochs, colours, strict=False):
        label = f"epoch {epoch}" if epoch in (epochs[0], epochs[-1]) else None
        times = range(1, len(by_time[epoch]) + 1)
        time_axes.plot(times, by_time[epoch], color=colour, marker=".", label=label)
    time_axes.axhline(0, color=GREY, linewidth=0.8)
    time_axes.set(xlabel="time step of the clip", title="reward by time step")
    if epochs:
        time_axes.legend(fontsize=8, frameon=False)
    return figure


def online_chart(curves: Mapping[str, Sequence[float]], metric: str) -> Figure:
    """Accuracy after 1..T frames, one line per source of patches."""
    figure, (axes,) = new_figure(8, 4.5)
    for number, (label, values) in enumerate(curves.items()):
        colour = PALETTE[number % len(PALETTE)]
        axes.plot(
            range(1, len(values) + 1), values, marker="o", markersize=4, color=colour, label=SOURCES.get(label, label)
        )
    axes.set(xlabel="frames seen", ylabel=f"{metric} (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=9, frameon=False)
    return figure


def compute_chart(
    measured: Sequence[ResultPoint],
    published: Sequence[ResultPoint],
    metric: str,
    curves: Sequence[Sequence[ResultPoint]] = (),
    exits: Sequence[ResultPoint] = (),
) -> Figure:
    """Accuracy over compute. Published results are hollow or grey; `curves` are measured ones after 1..T frames,
    `exits` those of early exit at rising budgets."""
    figure, (axes,) = new_figure(9.5, 5.5)
    for family in sorted({point.family for point in published}):
        points = sorted((p for p in published if p.family == family), key=lambda p: p.gflops)
        gflops, accuracy = [p.gflops for p in points], [p.accuracy for p in points]
        if family == "baseline":
            axes.scatter(gflops, accuracy, s=18, color=GREY, label="published baselines")
            for point in _without_overlap(points):
                _label(axes, point, GREY, 6.5)
        else:
            colour = FAMILIES.get(family, GREY)
            axes.scatter(gflops, accuracy, s=34, facecolors="none", edgecolors=colour, label=f"{family} (published)")
    for number, curve in enumerate(curves):
        label = "measured here, after 1, 2, ... frames" if number == 0 else None
        gflops, accuracy = [p.gflops for p in curve], [p.accuracy for p in curve]
        axes.plot(gflops, accuracy, color=RED, linewidth=1, marker=".", alpha=0.7, label=label)
    if exits:
        gflops, accuracy = [p.gflops for p in exits], [p.accuracy for p in exits]
        axes.plot(gflops, accuracy, color=TEAL, marker="o", markersize=4, label="measured here, early exit", zorder=2)
    if measured:
        gflops, accuracy = [p.gflops for p in measured], [p.accuracy for p in measured]
        axes.scatter(gflops, accuracy, s=60, marker="D", color=RED, label="measured here", zorder=3)
    falling = sorted(measured, key=lambda point: -point.accuracy)
    for number, point in enumerate(falling):
        covered = [other for other in falling[:number] if _labels_meet(point, other, [*measured, *published])]
        _label(axes, point, INK, 8, len(covered))
    if max((p.gflops for p in (*published, *measured)), default=0) > 150:
        axes.set_xscale("log")
    axes.set(xlabel="GFLOPs per video (multiply-adds)", ylabel=f"{metric} (%)")
    axes.margins(x=0.12, y=0.1)
    figure.legend(fontsize=8, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _labels_meet(point: ResultPoint, other: ResultPoint, shown: Sequence[ResultPoint]) -> bool:
    """Would the labels of two points cover each other in a chart of all that is shown?"""
    wide, high = (np.ptp([getattr(each, name) for each in shown]) or 1.0 for name in ("gflops", "accuracy"))
    return abs(other.gflops - point.gflops) <= 0.14 * wide and abs(other.accuracy - point.accuracy) <= 0.04 * high


def _without_overlap(points: list[ResultPoint]) -> list[ResultPoint]:
    """The points whose labels do not cover each other, the best ones first."""
    kept: list[ResultPoint] = []
    for point in sorted(points, key=lambda p: -p.accuracy):
        if not any(_labels_meet(point, other, points) for other in kept):
            kept.append(point)
    return kept


def _label(axes: Axes, point: ResultPoint, colour: str, size: float, lower: int = 0) -> None:
    """Write a point's label beside it, or so many lines lower."""
    offset = (5, 4 - lower * 1.25 * size)
    axes.annotate(
        point.label, (point.gflops, point.accuracy), offset, textcoords="offset points", size=size, color=colour
    )
