"""Checkpoints measured and logged. Goes in: which ones, on what, how; comes out: what the report shows of each.

They are measured one after the other, here or on a machine of a cluster, so that they do not disturb each other's
times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from adafocus.training.reports import Options
from pipelines.benchmarks.benchmark import How, benchmark
from pipelines.benchmarks.select import Chosen
from pipelines.paths import Places
from pipelines.reporting.report import Measured
from pipelines.training.loggers import track


@dataclass(frozen=True, slots=True)
class Machine:
    """What a measurement gets of a Ray cluster."""

    ray_address: str
    cpus: float = 0
    """0: one beside a GPU, else all of a machine."""
    gpus: float = 0


def assess_all(
    chosen: Sequence[Chosen], places: Places, options: Options, how: How, *, explain: int, machine: Machine | None
) -> list[Measured]:
    """Each as `assess` does, in this process, or as a task on `machine`."""
    work = [partial(assess, each, places, options, how, explain=explain) for each in chosen]
    if machine is None:
        return [measure() for measure in work]
    from pipelines.ray_runtime.tasks import run_tasks

    return run_tasks(work, address=machine.ray_address, cpus=machine.cpus, gpus=machine.gpus)


def assess(chosen: Chosen, places: Places, options: Options, how: How, *, explain: int = 0) -> Measured:
    """Measure a checkpoint and log it, with a page of `explain` clips of each kind if that is not 0."""
    result = benchmark(chosen.folder, places, options, how)
    made = track(result, chosen, places)
    if explain:
        from pipelines.benchmarks.gallery import log_gallery

        log_gallery(made, chosen.folder, places.shards, result, explain)
    return Measured(chosen.name, made.run_id, chosen.run_id or chosen.folder.name, result.facts, result.table(), {})
