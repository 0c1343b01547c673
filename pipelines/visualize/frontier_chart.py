"""The chart of a comparison of methods: accuracy over compute and over latency, and what training took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.visualize.figure import GREY, INK, new_figure
from pipelines.visualize.result_charts import PALETTE

LONGEST = 24
"""Letters of a contestant's name that fit beside a bar."""
MARKERS = {"own": "D", "prefix": ".", "exit": "o", "baseline": "x"}


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
    figure, (compute, latency, training) = new_figure(15, 5.2, columns=(3, 3, 1))
    groups = list(dict.fromkeys(point.group for point in points))
    colours = {group: PALETTE[number % len(PALETTE)] for number, group in enumerate(groups)}
    for group, colour in colours.items():
        own = [point for point in points if point.group == group]
        name = group if len(group) <= 2 * LONGEST else f"{group[: 2 * LONGEST]}..."
        _draw(compute, [(p, p.gflops) for p in own], colour, name)
        _draw(latency, [(p, p.latency_ms) for p in own if p.latency_ms is not None], colour, name)
    compute.set(xlabel="GFLOPs per video (multiply-adds)", ylabel=f"{metric} (%)", title="accuracy over compute")
    latency.set(xlabel="milliseconds, one video", title="accuracy over latency")
    for axes in (compute, latency):
        axes.set_xscale("log")
        axes.margins(x=0.12, y=0.08)
    compute.legend(fontsize=7, frameon=False, loc="lower right")
    names = [group if len(group) <= LONGEST else f"{group[:LONGEST]}..." for group in groups]
    heights = [minutes[group] for group in groups]
    training.barh(range(len(groups)), heights, color=[colours[group] for group in groups], tick_label=names)
    training.invert_yaxis()
    training.set(xlabel="minutes", title="training")
    for number, group in enumerate(groups):
        training.text(minutes[group], number, f" {minutes[group]:.1f}", va="center", size=8, color=INK)
    return figure


def _draw(axes: Axes, points: Sequence[tuple[ChartPoint, float]], colour: str, group: str) -> None:
    for kind, marker in MARKERS.items():
        chosen = sorted(((x, p.accuracy, p.label) for p, x in points if p.kind == kind), key=lambda row: row[0])
        if not chosen:
            continue
        xs, ys = [row[0] for row in chosen], [row[1] for row in chosen]
        if kind in ("prefix", "exit"):
            axes.plot(xs, ys, color=colour, linewidth=1, marker=marker, markersize=4, alpha=0.8)
        else:
            label = group if kind == "own" else None
            axes.scatter(xs, ys, s=46 if kind == "own" else 26, marker=marker, color=colour, label=label, zorder=3)
        if kind == "baseline":
            for x, y, text in chosen:
                axes.annotate(text, (x, y), (4, 3), textcoords="offset points", size=6, color=GREY)
