"""Compares methods on one data set: what each reaches at which cost, in training and in use.

Every recipe is trained (stages that are finished are found, also those that recipes share) and benchmarked; each row
becomes a point of accuracy over compute and over latency.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from adafocus import checkpoint
from adafocus.acceleration.accelerate import accelerate
from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.data.clip_table import evaluation_split
from adafocus.data.loader import ClipLoader
from adafocus.devices import pick_device
from adafocus.evaluation import multiply_adds
from adafocus.evaluation.evaluate import evaluate
from adafocus.models.adafocus import AdaFocus
from adafocus.training.reports import Options
from pipelines.benchmarks import profiling
from pipelines.benchmarks.options import BenchmarkOptions
from pipelines.benchmarks.run import run_benchmark
from pipelines.paths import Places
from pipelines.recipes import find_recipe
from pipelines.tracking.client import Tracker
from pipelines.tracking.models.checkpoints import SelectedCheckpoint, find_checkpoint
from pipelines.training.train import train
from preprocessing.schema import UserError
from preprocessing.shards.index import read_metadata

log = logging.getLogger(__name__)

SUBSETS = (0.25, 0.5, 0.75)
"""Shares of a clip's frames, evenly spread, on which a model is measured too."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A recipe with changes, and its name."""

    name: str
    recipe: str
    config: Config

    @classmethod
    def parse(cls, text: str) -> Contestant:
        """`demo-v2`, or with settings `demo:ppo.gamma=0.5:model.patch_size=36`. Raises UserError."""
        recipe, *changes = text.split(":")
        pairs = [change.partition("=") for change in changes]
        if any(not key or not value for key, _, value in pairs):
            raise UserError(f"{text!r} is not of the form RECIPE or RECIPE:KEY=VALUE:KEY=VALUE")
        config = override(find_recipe(recipe), {key: value for key, _, value in pairs})
        return cls(text, recipe, config)


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """One way to recognise clips, and what it costs."""

    contestant: str
    label: str
    """What is done with the contestant's model."""
    kind: str
    """`own` (what its method is for), `prefix` (the same, stopped after so many frames), `exit` (stopped when it is
    sure), `subset` (of fewer frames), or `baseline`."""
    accuracy: float
    """By the data set's metric, in percent."""
    hit_rate: float | None
    gflops: float
    """Per video."""
    latency_ms: float | None
    """Of one video; None for a prefix, whose time was not measured."""


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """What a contestant's stages took together, those that it shares with others too."""

    minutes: float
    processor_minutes: float
    """Of the training process, on all cores; 0 where that was not recorded."""


@dataclass(frozen=True, slots=True)
class Frontier:
    """All contestants on one data set."""

    dataset: str
    digest: str
    metric: str
    conditions: str
    points: list[FrontierPoint]
    training: dict[str, TrainingCost]
    """By contestant."""


def measure_frontier(
    contestants: Sequence[Contestant], places: Places, options: Options, benchmark_options: BenchmarkOptions
) -> Frontier:
    """Train what is missing, benchmark everything. Every trial and benchmark is logged to MLflow as by itself."""
    dataset = read_metadata(places.shards)
    metric, points, costs, conditions = dataset.info.metric, list[FrontierPoint](), dict[str, TrainingCost](), ""
    for number, each in enumerate(contestants, start=1):
        log.info("%s: %d of %d", each.name, number, len(contestants))
        folder = train(each.config, each.recipe, places, options, each.name)
        costs[each.name] = training_cost(folder, places)
        selected = replace(find_checkpoint(places, run=None, sweep=None, folder=folder), name=each.name)
        result = run_benchmark(_with_trial(selected, places), places, options, benchmark_options)
        conditions = result.conditions
        for row in result.rows:
            own = row["patches"] == "policy"
            kind = "own" if own else "baseline"
            values = (row[metric], row["hit_rate"], row["gflops"], row["latency_ms"])
            points.append(FrontierPoint(each.name, row["method"], kind, *values))
            if own:
                points += _prefixes(each.name, row["online"], metric)
        points += _exits(each.name, result.exits, metric)
        points += _subsets(each, folder, places, options, metric)
    return Frontier(dataset.info.name, dataset.digest, metric, conditions, points, costs)


def training_cost(folder: Path, places: Places) -> TrainingCost:
    """Of the stages of a finished model that are still there."""
    meta = checkpoint.read_meta(folder)
    stages = [places.runs / name for name in meta.stages]
    metas = [checkpoint.read_meta(stage) for stage in stages if (stage / checkpoint.META).exists()]
    minutes, processor = (sum(getattr(each, name) for each in metas) / 60 for name in ("seconds", "processor_seconds"))
    return TrainingCost(minutes, processor)


def _with_trial(selected: SelectedCheckpoint, places: Places) -> SelectedCheckpoint:
    """The same, linked with the trial that made it, so that a benchmark is not of a folder but of the trial."""
    for trial in Tracker.at(places).trials():
        if trial.checkpoint == selected.folder.name and trial.name == selected.name and not trial.sweep:
            return replace(selected, run_id=trial.run_id)
    return selected


def _prefixes(contestant: str, online: Sequence[dict[str, float]], metric: str) -> Iterator[FrontierPoint]:
    """The clip's prediction after 1, 2, ... frames, where a prefix costs its share."""
    if len({point["gflops"] for point in online}) > 1:
        for point in online[:-1]:
            label = f"stopped after {point['frames']} frames"
            yield FrontierPoint(contestant, label, "prefix", point[metric], None, point["gflops"], None)


def _exits(contestant: str, exits: Sequence[dict[str, float]], metric: str) -> Iterator[FrontierPoint]:
    """Early exit at rising budgets, where it was measured."""
    for point in exits:
        label, cost = f"early exit, budget {point['percent']} %", (point["gflops"], point["latency_ms"])
        yield FrontierPoint(contestant, label, "exit", point[metric], None, *cost)


def _subsets(
    contestant: Contestant, folder: Path, places: Places, options: Options, metric: str
) -> Iterator[FrontierPoint]:
    """The model on fewer frames, evenly spread over the clip, where it takes any number."""
    model, _ = checkpoint.load_model(folder)
    if not model.is_causal:
        return
    device = pick_device(options.device)
    fast = accelerate(model.to(device))
    for share in SUBSETS:
        count = max(1, round(share * contestant.config.data.num_frames))
        yield _subset(contestant, fast, model, places, count, metric, device)


def _subset(
    contestant: Contestant,
    fast: AdaFocus,
    model: AdaFocus,
    places: Places,
    count: int,
    metric: str,
    device: torch.device,
) -> FrontierPoint:
    data = replace(contestant.config.data, num_frames=count, num_focus_frames=count)
    loader = ClipLoader(places.shards, evaluation_split(places.shards), data, batch_size=32, train=False)
    scores = evaluate(fast, loader, patches="policy").metrics()
    batch = profiling.first_clip(next(iter(loader)).to(device))
    return FrontierPoint(
        contestant=contestant.name,
        label=f"{count} frames, evenly spread",
        kind="subset",
        accuracy=scores[metric],
        hit_rate=scores.get("hit_rate"),
        gflops=multiply_adds.count_model(model, num_frames=count)["total"],
        latency_ms=1000 * profiling.median_seconds(fast, batch, "policy"),
    )
