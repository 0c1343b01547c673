"""Matplotlib figures without pyplot: an empty one in the project's style, and a finished one as SVG."""

from __future__ import annotations

import io
import re

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RED, BLUE, TEAL, VIOLET, OCHRE, GREY = "#e4572e", "#2f7dd1", "#35a7a0", "#8a63d2", "#c78b12", "#8a8f98"
INK = "#010203"
"""Stands for the page's own text colour in an SVG."""


def new_figure(width: float, height: float, columns: tuple[int, ...] = (1,)) -> tuple[Figure, tuple[Axes, ...]]:
    """An empty figure of so many inches, with axes side by side whose widths have these ratios."""
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    axes = figure.subplots(1, len(columns), width_ratios=columns, squeeze=False)[0]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        for spine in each.spines.values():
            spine.set_color(INK)
        each.tick_params(colors=INK)
        for text in (each.xaxis.label, each.yaxis.label, each.title):
            text.set_color(INK)
    return figure, tuple(axes)


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
