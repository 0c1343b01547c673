"""The chart of a comparison of methods: accuracy over compute and over latency, and what training took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pipelines.visualize.charts.figure import GREY, INK, new_figure
from pipelines.visualize.charts.result_charts import PALETTE

LineStyle = Literal["-", "-.", ":"]
LONGEST = 48
"""Letters of a name that fit into the legend."""
CURVES: dict[str, tuple[LineStyle, str]] = {
    "prefix": ("-", "stopped after 1, 2, ... frames"),
    "exit": ("-.", "exits early"),
    "subset": (":", "fewer frames, evenly spread"),
}
"""Kinds of points that are drawn as a line, each with its style and its words."""
MARKERS = "x+v^sp*"
"""Of what a method has to beat, one for each label."""


@dataclass(frozen=True, slots=True)
class ChartPoint:
    """A point of the chart."""

    group: str
    """What shares a colour: the contestant."""
    label: str
    kind: str
    accuracy: float
    gflops: float
    latency_ms: float | None


def frontier_chart(points: Sequence[ChartPoint], minutes: Mapping[str, float], metric: str) -> Figure:
    """Accuracy over GFLOPs, accuracy over milliseconds, and training minutes by group."""
    figure, (compute, latency, training) = new_figure(15, 5.6, columns=(3, 3, 1))
    groups = list(dict.fromkeys(point.group for point in points))
    colours = {group: PALETTE[number % len(PALETTE)] for number, group in enumerate(groups)}
    labels = list(dict.fromkeys(point.label for point in points if point.kind == "baseline"))
    markers = {label: MARKERS[number % len(MARKERS)] for number, label in enumerate(labels)}
    timed = [(point, point.latency_ms) for point in points if point.latency_ms is not None]
    for axes, placed in ((compute, [(point, point.gflops) for point in points]), (latency, timed)):
        for group, colour in colours.items():
            _draw(axes, [(point, x) for point, x in placed if point.group == group], colour, markers)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.08, y=0.08)
    compute.set(xlabel="GFLOPs per video (multiply-adds)", ylabel=f"{metric} (%)", title="accuracy over compute")
    latency.set(xlabel="milliseconds, one video", title="accuracy over latency")
    handles = [
        *(Line2D([], [], marker="D", linestyle="", color=colours[group], label=_short(group)) for group in groups),
        *(
            Line2D([], [], linestyle=style, color=GREY, label=words)
            for kind, (style, words) in CURVES.items()
            if any(point.kind == kind for point in points)
        ),
        *(Line2D([], [], marker=mark, linestyle="", color=GREY, label=label) for label, mark in markers.items()),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    training.barh(range(len(groups)), [minutes[group] for group in groups], color=[colours[group] for group in groups])
    training.set_yticks([])
    training.invert_yaxis()
    training.margins(x=0.25)
    training.set(xlabel="minutes", title="training")
    for number, group in enumerate(groups):
        training.text(minutes[group], number, f" {minutes[group]:.1f}", va="center", size=8, color=INK)
    return figure


def _draw(axes: Axes, points: Sequence[tuple[ChartPoint, float]], colour: str, markers: Mapping[str, str]) -> None:
    """Draw one group's points."""
    for kind, (style, _) in CURVES.items():
        curve = sorted((x, point.accuracy) for point, x in points if point.kind == kind)
        if curve:
            axes.plot(*zip(*curve, strict=True), color=colour, linewidth=1.2, linestyle=style, marker=".", markersize=4)
    for point, x in points:
        if point.kind == "own":
            axes.scatter(x, point.accuracy, s=46, marker="D", color=colour, zorder=3)
        elif point.kind == "baseline":
            axes.scatter(x, point.accuracy, s=30, marker=markers[point.label], color=colour, zorder=3)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}..."
