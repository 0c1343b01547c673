"""The gallery of a benchmark: a page of the best, the worst and the most uncertain clips of the evaluation split."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from adafocus.config.schema import Precision
from adafocus.data.clip_table import ClipTable
from adafocus.evaluation.evaluate import Predictions
from adafocus.inference.packed_clips import packed_clip
from adafocus.inference.predictor import AdaFocusPredictor
from adafocus.models.adafocus import Patches
from pipelines.benchmarks.benchmark import Measurement
from pipelines.tracking.run import Run
from pipelines.visualize.explain.explain_page import PageSection, PredictedClip, page

log = logging.getLogger(__name__)

GALLERY = "gallery.html"


def select_clips(predicted: Predictions, count: int) -> dict[str, list[str]]:
    """Clip ids by heading, `count` each: surest of the right class, surest of a wrong one, and undecided.

    A clip with several classes counts as right with any of them.
    """
    prob_NK = predicted.logits_NTK[:, -1].softmax(-1)
    labels_NL, best_N = predicted.labels_NL, prob_NK.max(-1)
    right_N = (labels_NL == best_N.indices[:, None]).any(1)
    entropy_N = -(prob_NK * prob_NK.clamp_min(1e-12).log()).sum(-1)

    def highest(score_N: Tensor, among_N: Tensor) -> list[str]:
        order = score_N.where(among_N, -torch.inf).argsort(descending=True, stable=True)
        kept = order[: min(count, int(among_N.sum()))]
        return [predicted.clip_ids[number] for number in kept.tolist()]

    return {
        "Best: right, and most sure of it": highest(best_N.values, right_N),
        "Worst: wrong, and most sure of it": highest(best_N.values, ~right_N),
        "Most uncertain": highest(entropy_N, torch.ones_like(right_N)),
    }


def gallery_page(
    folder: Path,
    shards: str,
    split: str,
    predicted: Predictions,
    count: int,
    title: str,
    precision: Precision = "float32",
    patches: Patches = "policy",
) -> str:
    """The page as HTML. `predicted` decides which clips are shown; for the pictures they are predicted once more."""
    model = AdaFocusPredictor(folder, shards=shards, precision=precision, patches=patches)
    table = ClipTable(shards, split)
    number_of = {clip_id: number for number, clip_id in enumerate(table.clip_ids)}

    def predict(clip_id: str) -> PredictedClip:
        number = number_of[clip_id]
        clip, prediction = model.predict_clip(packed_clip(model, table, number))
        names = [model.class_names[label] for label in table.labels(number)]
        likeliest = prediction.top(1)[0][0]
        return PredictedClip(clip, prediction, likeliest if likeliest in names else names[0])

    groups = select_clips(predicted, count)
    return page(
        model, [PageSection(heading, [predict(each) for each in ids]) for heading, ids in groups.items() if ids], title
    )


def log_gallery(run: Run, folder: Path, shards: str, measurement: Measurement, count: int) -> None:
    """Log the page of a benchmark as its artifact `gallery.html`."""
    facts = measurement.facts
    title = f"{facts['dataset']}, split {facts['split']}: best, worst and most uncertain of {facts['clips']} clips"
    first = measurement.rows[0]
    patches = cast(Patches, first.patches)
    predicted = measurement.predictions[first.key()]
    html = gallery_page(folder, shards, facts["split"], predicted, count, title, first.precision, patches)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / GALLERY
        path.write_text(html, "utf-8")
        run.log_artifact(path)
    log.info("%s of %d clips is logged with the benchmark", GALLERY, 3 * count)
