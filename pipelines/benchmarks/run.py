"""Runs benchmarks: measures checkpoints one after the other, here or on a Ray cluster, and logs each to MLflow.

One after the other, so that they do not disturb each other's times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from adafocus.training.reports import Options
from pipelines.benchmarks.benchmark import measure_checkpoint
from pipelines.benchmarks.benchmark_logger import describe_benchmark, log_benchmark, result_of
from pipelines.benchmarks.options import BenchmarkOptions
from pipelines.paths import Places
from pipelines.reporting.benchmark_result import BenchmarkResult
from pipelines.tracking.client import Tracker
from pipelines.tracking.models.checkpoints import SelectedCheckpoint
from preprocessing.shards.index import read_metadata


@dataclass(frozen=True, slots=True)
class RayWorker:
    """A worker of a Ray cluster that measures: the cluster's address, and what the worker gets of a machine."""

    ray_address: str
    cpus: float = 0
    """0: one beside a GPU, else all of a machine."""
    gpus: float = 0


def run_benchmarks(
    checkpoints: Sequence[SelectedCheckpoint],
    places: Places,
    options: Options,
    benchmark_options: BenchmarkOptions,
    worker: RayWorker | None,
) -> list[BenchmarkResult]:
    """Run `run_benchmark` for each checkpoint: on `worker`, or in this process if that is None.

    Raises UserError, before anything is measured, if the MLflow store cannot take the results.
    """
    Tracker.at(places).experiment(read_metadata(places.shards).info.name)
    work = [partial(run_benchmark, each, places, options, benchmark_options) for each in checkpoints]
    if worker is None:
        return [run() for run in work]
    from pipelines.ray_runtime.tasks import run_tasks

    return run_tasks(work, address=worker.ray_address, cpus=worker.cpus, gpus=worker.gpus)


def run_benchmark(
    selected: SelectedCheckpoint, places: Places, options: Options, benchmark_options: BenchmarkOptions
) -> BenchmarkResult:
    """Measure a checkpoint and log the result."""
    measurement = measure_checkpoint(selected.folder, places, options, benchmark_options)
    run = log_benchmark(measurement, selected, places)
    if benchmark_options.gallery_clips:
        from pipelines.benchmarks.gallery import log_gallery

        log_gallery(run, selected.folder, places.shards, measurement, benchmark_options.gallery_clips)
        describe_benchmark(run, selected, measurement, places)
    return result_of(measurement, selected, run)
