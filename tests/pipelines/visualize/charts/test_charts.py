"""Charts: every class is there for few classes, the extreme ones for many; an SVG takes the page's colours."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from pipelines.recipes import RECIPES
from pipelines.reporting.published import MARKS, published_on, published_results
from pipelines.visualize.charts.class_charts import class_chart, confusion_chart
from pipelines.visualize.charts.figure import INK, to_svg
from pipelines.visualize.charts.result_charts import ResultPoint, compute_chart
from preprocessing.datasets import DATASETS


def words(figure: Figure) -> str:
    axes = figure.axes
    texts = [text.get_text() for each in axes for text in (*each.texts, *each.get_yticklabels(), each.title)]
    return "\n".join(texts)


@pytest.mark.parametrize("classes", [10, 200])
def test_confusion_names_what_is_confused(classes: int, tmp_path: Path) -> None:
    labels = np.arange(classes).repeat(3)
    guesses = labels.copy()
    guesses[:2] = 7  # two of three clips of class 0
    names = [f"class-{number}" for number in range(classes)]
    text = words(confusion_chart(labels, guesses, names))
    assert f"{3 * classes} clips" in text
    if classes == 10:
        assert all(name in text for name in names) and "2" in text.split("\n")
    else:
        assert "2  class-0 (0) as class-7 (7)" in text
    path = tmp_path / "confusion.png"
    confusion_chart(labels, guesses, names).savefig(path)
    assert min(Image.open(path).size) > 500


@pytest.mark.parametrize("classes", [10, 200])
def test_classes_without_clips_are_counted_not_drawn(classes: int) -> None:
    values = np.linspace(0, 100, classes)
    values[3] = np.nan
    figure = class_chart(values, np.full(classes, 5), [f"c{n}" for n in range(classes)], "accuracy")
    text = words(figure)
    assert "1 classes have no clip" in text and "c3 (" not in text
    assert f"c{classes - 1} (5)" in text and "c0 (5)" in text
    assert len(figure.axes[0].patches) == classes - 1


def test_an_svg_takes_the_pages_colours_and_is_the_same_again() -> None:
    def draw() -> str:
        rows = [ResultPoint(row.method, row.gflops, row.accuracy, row.family) for row in published_on("activitynet")]
        return to_svg(compute_chart([ResultPoint("mine", 26.5, 70)], rows, "mAP"), "a")

    text = draw()
    root = ElementTree.fromstring(text)
    assert "width" not in root.attrib and "viewBox" in root.attrib
    assert "currentColor" in text and INK not in text and "mine" in text
    assert text == draw()


def test_published_figures_have_a_mark_a_source_and_a_known_recipe() -> None:
    assert set(published_results()) <= {dataset.name for dataset in DATASETS}
    for dataset, rows in published_results().items():
        assert len(rows) == len(set(rows))
        for row in rows:
            assert {row.accuracy_mark, row.gflops_mark} <= set(MARKS) and row.source
            assert 0 < row.accuracy < 100 and 1 < row.gflops < 700
            assert row.recipe is None or (row.recipe in RECIPES and row.recipe.startswith(dataset))
    assert not any(row.family == "AdaFocus" for name in ("fcvid", "minikinetics") for row in published_on(name))
    assert published_on("folder") == ()


def test_measured_points_that_coincide_keep_labels_that_can_be_read() -> None:
    names = ("policy (AdaFocus)", "random, warm-up weights", "oracle: around the object's own box", "centre")
    points = [ResultPoint(name, 0.03 + 0.001 * n, 15.0) for n, name in enumerate(names)]
    figure = compute_chart([*points, ResultPoint("none: glancer alone", 0.01, 8.0)], [], "top-1")
    FigureCanvasAgg(figure).draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 5
    assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])
