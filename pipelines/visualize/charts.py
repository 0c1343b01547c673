"""Charts of what was measured: arrays in, matplotlib figures out, for the dashboard (PNG) and the report (SVG).

N clips, K classes, T prefixes. Nothing here reads a store or a model.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MANY_CLASSES = 40
"""From here on names and numbers of every class would not be readable: the extreme ones are listed instead."""
LISTED = 15
OURS, POLICY = "#e4572e", "#2f7dd1"
FAMILIES = {"AdaFocus": POLICY, "AdaFocus+": "#35a7a0", "AdaFocusV2": "#8a63d2", "Uni-AdaFocus": "#c78b12"}
GREY = "#8a8f98"
INK = "#010203"
"""Stands for the page's own text colour in an SVG."""


@dataclass(frozen=True, slots=True)
class Point:
    """A result in the plane of accuracy (percent) over compute (GFLOPs per video)."""

    label: str
    gflops: float
    accuracy: float
    family: str = ""
    """A published one's; empty: measured here."""


def confusion_chart(labels_N: np.ndarray, guesses_N: np.ndarray, class_names: Sequence[str]) -> Figure:
    """The confusion matrix, rows true classes. With many classes a heat map beside the pairs confused most often."""
    from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix  # three seconds that few processes need

    matrix = confusion_matrix(labels_N, guesses_N, labels=range(len(class_names)))
    names = [_short(name) for name in class_names]
    if len(names) <= MANY_CLASSES:
        side = 3 + 0.38 * len(names)
        figure, (axes,) = _figure(side + 1, side)
        display = ConfusionMatrixDisplay(matrix, display_labels=names)
        numbers = len(names) <= 25
        display.plot(ax=axes, cmap="Blues", colorbar=False, include_values=numbers, xticks_rotation="vertical")
        axes.set(xlabel="predicted", ylabel="true", title=f"{len(labels_N)} clips")
        return figure
    figure, (axes, side_axes) = _figure(15, 10, columns=(2, 1))
    with np.errstate(invalid="ignore"):
        shares = np.nan_to_num(matrix / matrix.sum(1, keepdims=True))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, shrink=0.6, label="share of the true class's clips")
    axes.set(xlabel="predicted class (index)", ylabel="true class (index)", title=f"{len(labels_N)} clips")
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    worst = [divmod(int(flat), len(names)) for flat in np.argsort(-wrong, axis=None, kind="stable")[: 2 * LISTED]]
    lines = [f"{wrong[i, j]:4d}  {names[i]} ({i}) as {names[j]} ({j})" for i, j in worst if wrong[i, j]]
    _listing(side_axes, "confused most often (clips, true as predicted)", lines or ["nothing was confused"])
    return figure


def class_chart(values_K: np.ndarray, counts_K: np.ndarray, class_names: Sequence[str], metric: str) -> Figure:
    """A percentage per class, NaN where no clip has the class; with many classes the extreme ones are named."""
    known = [number for number in np.argsort(-values_K, kind="stable") if not np.isnan(values_K[number])]
    values = values_K[known]
    labels = [f"{_short(class_names[number])} ({counts_K[number]})" for number in known]
    absent = len(class_names) - len(known)
    title = f"{metric} per class (clips)" + (f"; {absent} classes have no clip" if absent else "")
    if len(class_names) <= MANY_CLASSES:
        figure, (axes,) = _figure(9, 1.6 + 0.3 * len(known))
        bars = axes.barh(range(len(known)), values, color=POLICY)
        axes.bar_label(bars, fmt="%.1f", padding=3)
        axes.set_yticks(range(len(known)), labels)
        axes.invert_yaxis()
        axes.set(xlim=(0, 108), xlabel=f"{metric} (%)", title=title)
    else:
        figure, (axes, side_axes) = _figure(15, 8, columns=(2, 1))
        axes.bar(range(len(known)), values, width=1.0, color=POLICY)
        axes.axhline(values.mean(), color=OURS, label=f"mean {values.mean():.1f} %")
        axes.legend(frameon=False)
        axes.set(xlabel="classes, best first", ylabel=f"{metric} (%)", ylim=(0, 100), xlim=(-0.5, len(known) - 0.5))
        axes.set_title(title)
        lines = [f"{value:5.1f}  {label}" for value, label in zip(values, labels, strict=True)]
        _listing(side_axes, "best and worst", [*lines[:LISTED], "...", *lines[-LISTED:]])
    return figure


def reward_chart(steps: Sequence[int], rewards: Sequence[float], by_time: Mapping[int, Sequence[float]]) -> Figure:
    """The policy's mean reward over epochs, and beside it by time step, from the first epoch to the last.

    `by_time`: for each epoch the rewards of the T steps of a clip.
    """
    figure, (axes, time_axes) = _figure(11, 4, columns=(1, 1))
    axes.plot(steps, rewards, marker="o", markersize=4, color=POLICY)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set(xlabel="epoch", ylabel="mean reward", title="reward")
    shown = sorted(by_time)
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.85, max(len(shown), 1)))
    for step, colour in zip(shown, colours, strict=False):
        label = f"epoch {step}" if step in (shown[0], shown[-1]) else None
        times = range(1, len(by_time[step]) + 1)
        time_axes.plot(times, by_time[step], color=colour, marker=".", label=label)
    time_axes.axhline(0, color=GREY, linewidth=0.8)
    time_axes.set(xlabel="time step of the clip", title="reward by time step")
    if shown:
        time_axes.legend(fontsize=8, frameon=False)
    return figure


def online_chart(curves: Mapping[str, Sequence[float]], metric: str) -> Figure:
    """Accuracy after 1..T frames, one line per place to look."""
    figure, (axes,) = _figure(8, 4.5)
    for (label, values), colour in zip(curves.items(), _colours(len(curves)), strict=True):
        axes.plot(range(1, len(values) + 1), values, marker="o", markersize=4, color=colour, label=label)
    axes.set(xlabel="frames seen", ylabel=f"{metric} (%)", title="accuracy while the clip is watched")
    axes.legend(fontsize=9, frameon=False)
    return figure


def compute_chart(
    ours: Sequence[Point], published: Sequence[Point], metric: str, curves: Sequence[Sequence[Point]] = ()
) -> Figure:
    """Accuracy over compute. Published points are hollow or grey; `curves` are measured ones after 1..T frames."""
    figure, (axes,) = _figure(9.5, 5.5)
    for family in sorted({point.family for point in published}):
        points = sorted((p for p in published if p.family == family), key=lambda p: p.gflops)
        gflops, accuracy = [p.gflops for p in points], [p.accuracy for p in points]
        if family == "baseline":
            axes.scatter(gflops, accuracy, s=18, color=GREY, label="published baselines")
            for point in _apart(points):
                _note(axes, point, GREY, 6.5)
        else:
            colour = FAMILIES.get(family, GREY)
            axes.scatter(gflops, accuracy, s=34, facecolors="none", edgecolors=colour, label=f"{family} (published)")
    for number, curve in enumerate(curves):
        label = "measured here, after 1, 2, ... frames" if number == 0 else None
        gflops, accuracy = [p.gflops for p in curve], [p.accuracy for p in curve]
        axes.plot(gflops, accuracy, color=OURS, linewidth=1, marker=".", alpha=0.7, label=label)
    if ours:
        gflops, accuracy = [p.gflops for p in ours], [p.accuracy for p in ours]
        axes.scatter(gflops, accuracy, s=60, marker="D", color=OURS, label="measured here", zorder=3)
    for point in ours:
        _note(axes, point, INK, 8)
    if max((p.gflops for p in (*published, *ours)), default=0) > 150:
        axes.set_xscale("log")
    axes.set(xlabel="GFLOPs per video (multiply-adds)", ylabel=f"{metric} (%)")
    axes.margins(x=0.12, y=0.1)
    axes.legend(fontsize=8, loc="lower right", frameon=False)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as a PNG, on white."""
    figure.savefig(path, dpi=110)
    return path


def to_svg(figure: Figure, name: str) -> str:
    """A figure as one <svg> element whose text takes the page's colour: readable on light and dark. `name` keeps the
    identifiers of several charts on a page apart; the same figure gives the same text."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    for side in ("width", "height"):  # as wide as the page
        text = re.sub(rf'(<svg[^>]*?) {side}="[^"]*"', r"\1", text, count=1)
    return text


def _figure(width: float, height: float, columns: tuple[int, ...] = (1,)) -> tuple[Figure, tuple[Axes, ...]]:
    """An empty figure, without pyplot's global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, len(columns), width_ratios=columns, squeeze=False)[0]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        for spine in each.spines.values():
            spine.set_color(INK)
        each.tick_params(colors=INK)
        for text in (each.xaxis.label, each.yaxis.label, each.title):
            text.set_color(INK)
    return figure, tuple(axes)


def _colours(count: int) -> list[str]:
    palette = [POLICY, OURS, "#35a7a0", "#8a63d2", "#c78b12", GREY]
    return [palette[number % len(palette)] for number in range(count)]


def _apart(points: list[Point]) -> list[Point]:
    """Those whose labels do not cover each other, the best ones first."""
    wide, high = (np.ptp([getattr(p, name) for p in points]) or 1.0 for name in ("gflops", "accuracy"))
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: -p.accuracy):
        far = (
            abs(p.gflops - point.gflops) > 0.14 * wide or abs(p.accuracy - point.accuracy) > 0.04 * high for p in kept
        )
        if all(far):
            kept.append(point)
    return kept


def _note(axes: Axes, point: Point, colour: str, size: float) -> None:
    place: tuple[Literal["offset points"], tuple[int, int]] = ("offset points", (5, 4))
    axes.annotate(point.label, (point.gflops, point.accuracy), place[1], textcoords=place[0], size=size, color=colour)


def _listing(axes: Axes, title: str, lines: list[str]) -> None:
    axes.axis("off")
    axes.set_title(title, loc="left", fontsize=10)
    axes.text(0, 1, "\n".join(lines), va="top", family="monospace", fontsize=9, transform=axes.transAxes)


def _short(name: str, limit: int = 28) -> str:
    """Not too long, and with dollar signs as text, not as the start of a formula."""
    cut = name if len(name) <= limit else f"{name[: limit - 1]}…"
    return cut.replace("$", r"\$")
