"""Verbs of results: benchmark, frontier, report, dashboard. (`runs` has a file of its own.)"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import (
    DEFAULT_RUNS,
    CheckpointFolder,
    Device,
    EvalEvery,
    Json,
    NumWorkers,
    RunName,
    RunsFolder,
    SaveEvery,
    Shards,
    SweepName,
)
from pipelines.cli.values import exactly_one, training_options
from preprocessing.schema import UserError


def register(app: typer.Typer) -> None:
    """Add this file's verbs to the command line."""
    for verb in (benchmark, frontier, report, dashboard):
        app.command(rich_help_panel="Results")(verb)


def benchmark(
    shards: Shards,
    runs: RunsFolder = DEFAULT_RUNS,
    run: RunName = None,
    sweep: SweepName = None,
    best: Annotated[int, typer.Option(help="With --sweep: measure so many of its best trials.", min=1)] = 1,
    checkpoint: CheckpointFolder = None,
    batch_size: Annotated[int, typer.Option(help="Clips per batch.", min=1)] = 32,
    precision: Annotated[str, typer.Option(help="Of the image networks, a row each: float32,bf16,fp16.")] = "float32",
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the image networks, which takes minutes.")
    ] = False,
    probe: Annotated[bool, typer.Option(help="Add linear and attentive probes of whole frames.")] = False,
    exit: Annotated[
        bool, typer.Option("--exit", help="Add early exit at every budget; calibrates where that was not done yet.")
    ] = False,
    explain: Annotated[
        int, typer.Option(help="Log a page of so many best, worst and most uncertain clips each.", min=0)
    ] = 0,
    split: Annotated[
        str | None, typer.Option(help="Measure on this split [the one that training was evaluated on].")
    ] = None,
    device: Device = "auto",
    num_workers: NumWorkers = 0,
    ray_address: Annotated[
        str | None, typer.Option(help="Measure on a machine of this Ray cluster, e.g. auto [measure here].")
    ] = None,
    cpus_per_worker: Annotated[
        float, typer.Option(help="There: CPUs; 0: one beside a GPU, else all of a machine.", min=0)
    ] = 0,
    gpus_per_worker: Annotated[float, typer.Option(help="There: GPUs.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Measure accuracy, compute and speed of a finished run, and log them to MLflow."""
    from rich.console import Console

    from pipelines.benchmarks.options import BenchmarkOptions, parse_precisions
    from pipelines.benchmarks.run import RayWorker, run_benchmarks
    from pipelines.machine.checks import say_troubles
    from pipelines.paths import Places
    from pipelines.reporting.tables import print_results, to_json
    from pipelines.tracking.models.checkpoints import find_checkpoints

    exactly_one(run=run, sweep=sweep, checkpoint=checkpoint)
    if best > 1 and sweep is None:
        raise UserError(f"--best {best} is of a sweep: give --sweep")
    if (cpus_per_worker or gpus_per_worker) and ray_address is None:
        raise UserError("--cpus-per-worker and --gpus-per-worker are of a cluster's machine: give --ray-address")
    benchmark_options = BenchmarkOptions(
        batch_size, parse_precisions(precision), compile, probe, exit, explain, split=split
    )
    places = Places.of(shards, runs)
    checkpoints = find_checkpoints(places, run=run, sweep=sweep, folder=checkpoint, best=best)
    worker = None if ray_address is None else RayWorker(ray_address, cpus_per_worker, gpus_per_worker)
    options = training_options(device, num_workers)
    say_troubles(num_workers)
    results = run_benchmarks(checkpoints, places, options, benchmark_options, worker)
    typer.echo(to_json(results)) if as_json else print_results(results, Console())


def frontier(
    shards: Shards,
    recipes: Annotated[
        str,
        typer.Option(help="What to compare: recipes, separated by commas; with settings as demo:ppo.gamma=0.5."),
    ],
    runs: RunsFolder = DEFAULT_RUNS,
    probe: Annotated[bool, typer.Option(help="Add linear and attentive probes of whole frames.")] = True,
    exit: Annotated[bool, typer.Option("--exit", help="Add early exit at every budget to the chart.")] = False,
    device: Device = "auto",
    num_workers: NumWorkers = 0,
    eval_every: EvalEvery = 1,
    save_every: SaveEvery = 300,
    as_json: Json = False,
) -> None:
    """Compare methods on one data set: train what is missing, benchmark all, and draw accuracy over cost."""
    import json
    from dataclasses import asdict

    from rich.console import Console

    from pipelines.benchmarks.frontier import Contestant, measure_frontier
    from pipelines.benchmarks.frontier_logger import log_frontier
    from pipelines.benchmarks.options import BenchmarkOptions
    from pipelines.machine.checks import say_troubles
    from pipelines.paths import Places
    from pipelines.reporting.tables import print_frontier

    contestants = [Contestant.parse(text) for text in dict.fromkeys(recipes.split(",")) if text]
    if not contestants:
        raise UserError("--recipes names no recipe")
    places = Places.of(shards, runs)
    options = training_options(device, num_workers, eval_every, save_every)
    say_troubles(num_workers)
    measured = measure_frontier(contestants, places, options, BenchmarkOptions(probe=probe, exits=exit))
    _, result = log_frontier(measured, places)
    typer.echo(json.dumps(asdict(result))) if as_json else print_frontier(result, Console())


def report(
    runs: RunsFolder = DEFAULT_RUNS,
    name: Annotated[str | None, typer.Option(help="Only this sweep's trials.")] = None,
    out: Annotated[Path, typer.Option(help="Markdown file to write; a .html page goes beside it.")] = Path(
        "results/RESULTS.md"
    ),
    stale_after: Annotated[
        float, typer.Option(help="Minutes without a sign of life after which an open run is called stale.", min=0)
    ] = 10,
    as_json: Json = False,
) -> None:
    """Write what is in MLflow as RESULTS.md and an HTML page: results, sweeps, failures, what is missing."""
    from rich.console import Console

    from pipelines.paths import Places
    from pipelines.reporting.collect import collect_report
    from pipelines.reporting.pages import write_pages
    from pipelines.reporting.tables import print_report, to_json

    collected = collect_report(Places.of("", runs), name, stale_after)
    written = write_pages(collected, out)
    if as_json:
        typer.echo(to_json(collected.benchmarks))
    else:
        print_report(collected, Console())
        typer.echo(f"written: {', '.join(map(str, written))}")


def dashboard(
    runs: RunsFolder = DEFAULT_RUNS,
    host: Annotated[str, typer.Option(help="Address to listen on; anything but 127.0.0.1 opens it to others.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 5000,
) -> None:
    """Serve the MLflow dashboard."""
    from pipelines.paths import Places
    from pipelines.tracking.client import Tracker
    from pipelines.tracking.run import MODEL_VIEW

    places = Places.of("", runs)
    Tracker.at(places)  # so that a fresh store is complete before the server opens it
    if places.tracking_uri.startswith("http"):
        raise UserError(f"MLFLOW_TRACKING_URI is {places.store}: that server has the dashboard already")
    typer.echo(f"MLflow: http://{host}:{port}/#/experiments?{MODEL_VIEW}  (Ctrl-C stops it)")
    sys.stdout.flush()
    arguments = ["server", "--host", host, "--port", str(port)]
    os.environ["MLFLOW_BACKEND_STORE_URI"] = places.tracking_uri  # it may hold a password, and arguments are public
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # nothing here needs it, and it runs code
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", *arguments, "--workers", "1"])
