"""What a trial and a benchmark leave in MLflow: what they are, what they made, what can be recomputed."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from adafocus import checkpoint
from adafocus.config import Config, flatten
from adafocus.loader import ClipLoader
from pipelines.figures import draw_strips
from pipelines.tracking import Run

if TYPE_CHECKING:
    from pipelines.benchmark import Benchmark
    from pipelines.train import Places


def describe(run: Run, config: Config, places: Places, recipe: str) -> None:
    """Log what a trial is before it starts: configuration and data set."""
    info, digest = ClipLoader.describe(places.shards)
    run.params({**flatten(config), "recipe": recipe})
    run.dataset(info, digest, places.shards)


def complete(run: Run, folder: Path, places: Places) -> None:
    """Log what a trial made: weights, meta.json, and a picture of where it looks."""
    run.artifact(folder, "model")
    with tempfile.TemporaryDirectory() as temporary:
        strips = Path(temporary) / "patches.png"
        draw_strips(folder, places.shards, strips)
        run.artifact(strips)
    meta = checkpoint.read_meta(folder)
    run.tags({"checkpoint": folder.name, "digest": meta.digest, "metric": meta.info["metric"]})


def track(result: Benchmark, folder: Path, places: Places, trial: str, name: str) -> Run:
    """Log a benchmark as an MLflow run of its own, beside the trial that it measured."""
    info, digest = ClipLoader.describe(places.shards)
    tracker = places.tracker()
    run = tracker.run(info.name, "benchmark", f"benchmark {name}", trial=trial or folder.name, checkpoint=folder.name)
    run.params(result.facts)
    run.dataset(info, digest, places.shards)
    for row in result.rows:
        prefix = f"bench/{row.patches}" if "warm-up" not in row.method else "bench/warmup_random"
        values = {key: value for key, value in asdict(row).items() if isinstance(value, float)}
        run.metrics({f"{prefix}/{key}": value for key, value in values.items()})
    table = {"facts": result.facts, "rows": result.table()}
    run.json("table.json", table)
    with tempfile.TemporaryDirectory() as temporary:
        for key, predicted in result.predictions.items():
            path = Path(temporary) / f"{key}.parquet"
            pq.write_table(predicted.table(), path)
            run.artifact(path, "predictions")
        strips = Path(temporary) / "patches.png"
        draw_strips(folder, places.shards, strips)
        run.artifact(strips)
    if trial:
        Run.open(tracker, trial).json("table.json", table)
    run.finish()
    return run
