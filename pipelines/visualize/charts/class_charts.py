"""Charts of classes: the confusion matrix, and a percentage per class. N clips, K classes; nothing is read or run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.visualize.charts.figure import BLUE, RED, new_figure

MAX_NAMED = 40
"""With more classes their names and numbers would not be readable: only the extreme ones are listed."""
NUM_LISTED = 15
"""So many classes from each end."""


def confusion_chart(labels_N: np.ndarray, guesses_N: np.ndarray, class_names: Sequence[str]) -> Figure:
    """The confusion matrix, rows true classes. With many classes a heat map beside the pairs confused most often."""
    from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix  # three seconds that few processes need

    matrix = confusion_matrix(labels_N, guesses_N, labels=range(len(class_names)))
    names = [_short(name) for name in class_names]
    if len(names) <= MAX_NAMED:
        side = 3 + 0.38 * len(names)
        figure, (axes,) = new_figure(side + 1, side)
        display = ConfusionMatrixDisplay(matrix, display_labels=names)
        numbers = len(names) <= 25
        display.plot(ax=axes, cmap="Blues", colorbar=False, include_values=numbers, xticks_rotation="vertical")
        axes.set(xlabel="predicted", ylabel="true", title=f"{len(labels_N)} clips")
        return figure
    figure, (axes, side_axes) = new_figure(15, 10, columns=(2, 1))
    with np.errstate(invalid="ignore"):
        shares = np.nan_to_num(matrix / matrix.sum(1, keepdims=True))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, shrink=0.6, label="share of the true class's clips")
    axes.set(xlabel="predicted class (index)", ylabel="true class (index)", title=f"{len(labels_N)} clips")
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    worst = [divmod(int(flat), len(names)) for flat in np.argsort(-wrong, axis=None, kind="stable")[: 2 * NUM_LISTED]]
    lines = [f"{wrong[i, j]:4d}  {names[i]} ({i}) as {names[j]} ({j})" for i, j in worst if wrong[i, j]]
    _list_beside(side_axes, "confused most often (clips, true as predicted)", lines or ["nothing was confused"])
    return figure


def class_chart(values_K: np.ndarray, counts_K: np.ndarray, class_names: Sequence[str], metric: str) -> Figure:
    """A percentage per class, NaN where no clip has the class; with many classes the extreme ones are named."""
    present = [number for number in np.argsort(-values_K, kind="stable") if not np.isnan(values_K[number])]
    values = values_K[present]
    labels = [f"{_short(class_names[number])} ({counts_K[number]})" for number in present]
    absent = len(class_names) - len(present)
    title = f"{metric} per class (clips)" + (f"; {absent} classes have no clip" if absent else "")
    if len(class_names) <= MAX_NAMED:
        figure, (axes,) = new_figure(9, 1.6 + 0.3 * len(present))
        bars = axes.barh(range(len(present)), values, color=BLUE)
        axes.bar_label(bars, fmt="%.1f", padding=3)
        axes.set_yticks(range(len(present)), labels)
        axes.invert_yaxis()
        axes.set(xlim=(0, 108), xlabel=f"{metric} (%)", title=title)
    else:
        figure, (axes, side_axes) = new_figure(15, 8, columns=(2, 1))
        axes.bar(range(len(present)), values, width=1.0, color=BLUE)
        axes.axhline(values.mean(), color=RED, label=f"mean {values.mean():.1f} %")
        axes.legend(frameon=False)
        axes.set(xlabel="classes, best first", ylabel=f"{metric} (%)", ylim=(0, 100), xlim=(-0.5, len(present) - 0.5))
        axes.set_title(title)
        lines = [f"{value:5.1f}  {label}" for value, label in zip(values, labels, strict=True)]
        _list_beside(side_axes, "best and worst", [*lines[:NUM_LISTED], "...", *lines[-NUM_LISTED:]])
    return figure


def _list_beside(axes: Axes, title: str, lines: list[str]) -> None:
    """Write lines of text instead of a chart."""
    axes.axis("off")
    axes.set_title(title, loc="left", fontsize=10)
    axes.text(0, 1, "\n".join(lines), va="top", family="monospace", fontsize=9, transform=axes.transAxes)


def _short(name: str, limit: int = 28) -> str:
    """Not too long, and with dollar signs as text, not as the start of a formula."""
    cut = name if len(name) <= limit else f"{name[: limit - 1]}…"
    return cut.replace("$", r"\$")
