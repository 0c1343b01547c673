"""Writes a model as a folder to share, with a model card out of what MLflow knows of it."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PureWindowsPath

from jinja2 import Environment, StrictUndefined

from adafocus import checkpoint
from adafocus.checkpoint import Meta
from adafocus.evaluation import multiply_adds
from adafocus.inference.predictor import extraction_of
from adafocus.interop.pretrained import save_pretrained
from adafocus.models.adafocus import AdaFocus
from pipelines.paths import Places
from pipelines.reporting.benchmark_result import BenchmarkResult
from pipelines.reporting.collect import read_benchmarks
from pipelines.reporting.markdown import cell, table
from pipelines.reporting.tables import LEGEND, result_tables
from pipelines.tracking.client import Tracker
from pipelines.tracking.metric_names import IN_WORDS
from pipelines.tracking.models.checkpoints import SelectedCheckpoint
from preprocessing.schema import ExtractionSpec

NETWORKS = ("glancer", "focuser")
MOST_CLASSES = 30
"""Classes whose names stand on the card; all of them are in config.json."""


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a model card says besides the checkpoint's own record."""

    title: str
    recipe: str = ""
    licence: str = ""
    """Of the weights; empty if the one who shares them names none."""
    benchmarks: tuple[BenchmarkResult, ...] = ()


def share(
    selected: SelectedCheckpoint,
    places: Places,
    out: Path,
    *,
    spec: ExtractionSpec | None = None,
    licence: str = "",
    hub_name: str = "",
) -> None:
    """Write a checkpoint to the folder `out` as a model to share. `hub_name`: its name on the hub; `spec`: how its
    frames were extracted, where neither its record nor its data set says so.

    Raises UserError for an unfinished checkpoint, and if there is something else in `out`.
    """
    recipe, benchmarks, shards = "", tuple[BenchmarkResult, ...](), places.shards or None
    if selected.run_id:
        tracker = Tracker.at(places)
        recipe = tracker.open(selected.run_id).param("recipe")
        benchmarks = tuple(read_benchmarks(tracker, {selected.run_id})[0])
        shards = shards or tracker.shards_of(selected.run_id)
    model, meta = checkpoint.load_model(selected.folder)
    facts = CardFacts(selected.name or hub_name or out.name, recipe, licence, benchmarks)
    card = model_card(model, meta, facts, hub_name or out.name)
    save_pretrained(selected.folder, out, spec or extraction_of(meta, shards, selected.folder), card)


def model_card(model: AdaFocus, meta: Meta, facts: CardFacts, name: str) -> str:
    """The README of a shared model; `name` is the folder, or the name on the hub, in the lines that use it."""
    names = [cell(each) for each in meta.class_names]
    own = {f"{meta.stage}/val_{name}": IN_WORDS[name] for name in ("top1", "map")}
    template = files("pipelines.serving").joinpath("templates", "card.md.j2").read_text("utf-8")
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["cell"] = cell
    return environment.from_string(template).render(
        name=name,
        facts=facts,
        meta=meta,
        config=model.config,
        classes=textwrap.fill(", ".join(names[:MOST_CLASSES]), 110),
        more_classes=max(len(names) - MOST_CLASSES, 0),
        initial={part: PureWindowsPath(str(meta.config[f"model.{part}_weights"])).name for part in NETWORKS},
        tables=[
            (cell(each.title), table(each.headings, each.num_words, [row for block in each.blocks for row in block]))
            for each in result_tables(facts.benchmarks)
        ],
        legend=LEGEND,
        minutes=meta.seconds / 60,
        gflops=multiply_adds.count_model(model),
        reached={own[key]: value for key, value in meta.metrics.items() if key in own},
    )
