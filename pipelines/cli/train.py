"""Verbs of the training half: train, benchmark, report, recipes, dashboard."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.data import RUNS, Json, RunsDir
from preprocessing.schema import UserError

if TYPE_CHECKING:
    from adafocus.config.schema import Config
    from adafocus.training.trainer import Options
    from pipelines.paths import Places

Shards = Annotated[str, typer.Option(help="Folder or URL of a preprocessed data set.")]
RecipeName = Annotated[str, typer.Option(help="Name of a recipe; `adafocus recipes` lists them.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="Change a setting: --set ppo.lr=1e-4.")]
ScaleLr = Annotated[
    bool, typer.Option("--scale-lr", help="Scale SGD's learning rates with the global batch, from the recipe's.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Workers = Annotated[int, typer.Option(help="Processes that load clips, per training worker.")]
EvalEvery = Annotated[
    int, typer.Option(help="Epochs between evaluations; a stage's last epoch is always evaluated.", min=1)
]
SaveEvery = Annotated[
    float, typer.Option(help="Seconds between states saved inside an epoch; one is saved after each too.", min=0)
]


def register(app: typer.Typer) -> None:
    """Add this file's verbs to the command line."""
    app.command(rich_help_panel="Training")(recipes)
    app.command(rich_help_panel="Training")(train)
    app.command(rich_help_panel="Results")(benchmark)
    app.command(rich_help_panel="Results")(report)
    app.command(rich_help_panel="Results")(dashboard)


def train(
    recipe: RecipeName,
    shards: Shards,
    runs: RunsDir = RUNS,
    name: Annotated[str | None, typer.Option(help="Name of the run in MLflow [the recipe's].")] = None,
    changes: Changes = None,
    scale_lr: ScaleLr = False,
    device: Device = "auto",
    num_workers: Workers = 0,
    eval_every: EvalEvery = 1,
    save_every: SaveEvery = 300,
) -> None:
    """Train one configuration through all stages. Start it again to go on after a stop."""
    from pipelines.training.train import train as run

    config, places = config_of(recipe, changes, scale_lr), places_of(shards, runs)
    folder = run(config, recipe, places, options_of(device, num_workers, eval_every, save_every), name or recipe)
    typer.echo(f"finished: {folder}")


def benchmark(
    shards: Shards,
    runs: RunsDir = RUNS,
    run: Annotated[str | None, typer.Option(help="MLflow run to measure, by id, name, or sweep and name.")] = None,
    sweep: Annotated[str | None, typer.Option(help="Measure the best trial of this sweep.")] = None,
    best: Annotated[int, typer.Option(help="With --sweep: measure so many of its best trials.", min=1)] = 1,
    checkpoint: Annotated[Path | None, typer.Option(help="Measure the model in this folder.")] = None,
    batch_size: Annotated[int, typer.Option(help="Clips per batch.", min=1)] = 32,
    precision: Annotated[str, typer.Option(help="Of the image networks, a row each: float32,bf16,fp16.")] = "float32",
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the image networks, which takes minutes.")
    ] = False,
    probe: Annotated[bool, typer.Option(help="Add linear classifiers on features of whole frames.")] = False,
    explain: Annotated[
        int, typer.Option(help="Log a page of so many best, worst and most uncertain clips each.", min=0)
    ] = 0,
    device: Device = "auto",
    num_workers: Workers = 0,
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

    from pipelines.benchmarks.benchmark import How, parse_precisions
    from pipelines.benchmarks.run import Machine, assess_all
    from pipelines.benchmarks.select import find_checkpoints
    from pipelines.reporting import report as reports

    if sum(given is not None for given in (run, sweep, checkpoint)) != 1:
        raise UserError("give exactly one of --run, --sweep and --checkpoint")
    if best > 1 and sweep is None:
        raise UserError(f"--best {best} is of a sweep: give --sweep")
    if (cpus_per_worker or gpus_per_worker) and ray_address is None:
        raise UserError("--cpus-per-worker and --gpus-per-worker are of a cluster's machine: give --ray-address")
    how = How(batch_size, parse_precisions(precision), compile, probe)
    places = places_of(shards, runs)
    chosen = find_checkpoints(places, run=run, sweep=sweep, folder=checkpoint, best=best)
    machine = None if ray_address is None else Machine(ray_address, cpus_per_worker, gpus_per_worker)
    options = options_of(device, num_workers)
    found = assess_all(chosen, places, options, how, explain=explain, machine=machine)
    typer.echo(reports.as_json(found)) if as_json else reports.show(found, Console())


def report(
    runs: RunsDir = RUNS,
    name: Annotated[str | None, typer.Option(help="Only this sweep's trials.")] = None,
    out: Annotated[Path, typer.Option(help="Markdown file to write; a .html page goes beside it.")] = Path(
        "results/RESULTS.md"
    ),
    as_json: Json = False,
) -> None:
    """Write what is in MLflow as RESULTS.md and an HTML page: results, sweeps, failures, what is missing."""
    from rich.console import Console

    from pipelines.reporting import pages
    from pipelines.reporting import report as reports

    results = reports.collect(places_of("", runs), name)
    written = pages.write(results, out)
    if as_json:
        typer.echo(reports.as_json(results.measured))
    else:
        reports.show_report(results, Console())
        typer.echo(f"written: {', '.join(map(str, written))}")


def recipes(
    flops: Annotated[
        bool, typer.Option("--flops", help="Count giga multiply-adds per video, and parameters, by part.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the recipes, or what each of them costs."""
    import json

    from pipelines.recipes.recipes import RECIPES, about

    if flops:
        from rich.console import Console

        from pipelines.reporting.recipe_costs import cost, cost_table
    if as_json:
        rows = [{"recipe": name, "about": about(name), **(cost(name) if flops else {})} for name in RECIPES]
        typer.echo(json.dumps(rows))
    elif flops:
        Console().print(cost_table({name: cost(name) for name in RECIPES}))
    else:
        typer.echo("\n".join(f"{name:18} {about(name)}" for name in RECIPES))


def dashboard(
    runs: RunsDir = RUNS,
    host: Annotated[str, typer.Option(help="Address to listen on; anything but 127.0.0.1 opens it to others.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 5000,
) -> None:
    """Serve the MLflow dashboard."""
    from pipelines.tracking.client import MODEL_VIEW, Tracker

    places = places_of("", runs)
    Tracker.at(places)  # so that a fresh store is complete before the server opens it
    if places.tracking_uri.startswith("http"):
        raise UserError(f"MLFLOW_TRACKING_URI is {places.store}: that server has the dashboard already")
    typer.echo(f"MLflow: http://{host}:{port}/#/experiments?{MODEL_VIEW}  (Ctrl-C stops it)")
    sys.stdout.flush()
    arguments = ["server", "--host", host, "--port", str(port)]
    os.environ["MLFLOW_BACKEND_STORE_URI"] = places.tracking_uri  # it may hold a password, and arguments are public
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # nothing here needs it, and it runs code
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", *arguments, "--workers", "1"])


def config_of(recipe: str, changes: list[str] | None, scale_lr: bool) -> Config:
    from adafocus.config.schema import override
    from adafocus.config.validation import check
    from pipelines.paths import absolute_setting
    from pipelines.recipes.recipes import find_recipe, scale_rates

    pairs = {}
    for change in changes or []:
        key, equals, value = change.partition("=")
        if not equals:
            raise UserError(f"--set {change!r} is not of the form key=value")
        pairs[key] = absolute_setting(key, value)
    config = check(override(find_recipe(recipe), pairs))
    return scale_rates(config, find_recipe(recipe)) if scale_lr else config


def places_of(shards: str, runs: Path) -> Places:
    from pipelines.paths import Places

    return Places.of(shards, runs)


def options_of(device: str, num_workers: int, eval_every: int = 1, save_every: float = 300) -> Options:
    from adafocus.training.trainer import Options

    return Options(device, num_workers, eval_every, save_every_s=save_every)
