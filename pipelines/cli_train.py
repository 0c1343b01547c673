"""Verbs of the training half: train, benchmark, report, recipes, dashboard."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli_data import RUNS, Json, RunsDir
from preprocessing.schema import UserError

if TYPE_CHECKING:
    from adafocus.config import Config
    from adafocus.stages.trainer import Options
    from pipelines.train import Places

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
    for verb in (train, benchmark, report, recipes, dashboard):
        app.command()(verb)


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
    from pipelines.train import train as run

    config, places = config_of(recipe, changes, scale_lr), places_of(shards, runs)
    folder = run(config, recipe, places, options_of(device, num_workers, eval_every, save_every), name or recipe)
    typer.echo(f"finished: {folder}")


def benchmark(
    shards: Shards,
    runs: RunsDir = RUNS,
    run: Annotated[str | None, typer.Option(help="MLflow run to measure, by id or name.")] = None,
    sweep: Annotated[str | None, typer.Option(help="Measure the best trial of this sweep.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Measure the model in this folder.")] = None,
    batch_size: Annotated[int, typer.Option(help="Clips per batch.", min=1)] = 32,
    precision: Annotated[str, typer.Option(help="Of the image networks, a row each: float32,bf16,fp16.")] = "float32",
    probe: Annotated[bool, typer.Option(help="Add linear classifiers on features of whole frames.")] = False,
    explain: Annotated[
        int, typer.Option(help="Log a page of so many best, worst and most uncertain clips each.", min=0)
    ] = 0,
    device: Device = "auto",
    num_workers: Workers = 0,
    as_json: Json = False,
) -> None:
    """Measure accuracy, compute and speed of a finished run, and log them to MLflow."""
    from rich.console import Console

    from pipelines import benchmark as bench
    from pipelines import report as reports
    from pipelines.record import track

    if sum(given is not None for given in (run, sweep, checkpoint)) != 1:
        raise UserError("give exactly one of --run, --sweep and --checkpoint")
    precisions = bench.parse_precisions(precision)
    places = places_of(shards, runs)
    folder, trial, name = bench.find_checkpoint(places, run=run, sweep=sweep, folder=checkpoint)
    options = options_of(device, num_workers)
    result = bench.benchmark(folder, places, options, batch_size=batch_size, precisions=precisions, probe=probe)
    made = track(result, folder, places, trial, name)
    if explain:
        from pipelines.gallery import log_gallery

        log_gallery(made, folder, places.shards, result, explain)
    table = [reports.Measured(name, made.run_id, trial or folder.name, result.facts, result.table(), {})]
    typer.echo(reports.as_json(table)) if as_json else reports.show(table, Console())


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

    from pipelines import pages
    from pipelines import report as reports

    results = reports.collect(places_of("", runs), name)
    written = pages.write(results, out)
    if as_json:
        typer.echo(reports.as_json(results.measured))
    else:
        reports.show_report(results, Console())
        typer.echo(f"written: {', '.join(map(str, written))}")


def recipes(as_json: Json = False) -> None:
    """List the recipes."""
    import json

    from pipelines.recipes import RECIPES

    lines = {name: (recipe.__doc__ or "").splitlines()[0] for name, recipe in RECIPES.items()}
    if as_json:
        typer.echo(json.dumps([{"recipe": name, "about": about} for name, about in lines.items()]))
    else:
        typer.echo("\n".join(f"{name:18} {about}" for name, about in lines.items()))


def dashboard(
    runs: RunsDir = RUNS,
    host: Annotated[str, typer.Option(help="Address to listen on; anything but 127.0.0.1 opens it to others.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 5000,
) -> None:
    """Serve the MLflow dashboard."""
    from pipelines.tracking import MODEL_VIEW

    places = places_of("", runs)
    places.tracker()  # so that a fresh store is complete before the server opens it
    if places.tracking_uri.startswith("http"):
        raise UserError(f"MLFLOW_TRACKING_URI is {places.tracking_uri}: that server has the dashboard already")
    typer.echo(f"MLflow: http://{host}:{port}/#/experiments?{MODEL_VIEW}  (Ctrl-C stops it)")
    sys.stdout.flush()
    arguments = ["server", "--backend-store-uri", places.tracking_uri, "--host", host, "--port", str(port)]
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # nothing here needs it, and it runs code
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", *arguments, "--workers", "1"])


def config_of(recipe: str, changes: list[str] | None, scale_lr: bool) -> Config:
    from adafocus.config import override
    from pipelines.recipes import find_recipe, scale_rates

    pairs = {}
    for change in changes or []:
        key, equals, value = change.partition("=")
        if not equals:
            raise UserError(f"--set {change!r} is not of the form key=value")
        pairs[key] = value
    config = override(find_recipe(recipe), pairs)
    return scale_rates(config, find_recipe(recipe)) if scale_lr else config


def places_of(shards: str, runs: Path) -> Places:
    from pipelines.train import Places

    return Places.of(shards, runs)


def options_of(device: str, num_workers: int, eval_every: int = 1, save_every: float = 300) -> Options:
    from adafocus.stages.trainer import Options

    return Options(device, num_workers, eval_every, save_every_s=save_every)
