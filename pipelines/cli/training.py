"""Verbs of training: recipes, train. (`tune` has a file of its own.)"""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.options import (
    DEFAULT_RUNS,
    Changes,
    Device,
    EvalEvery,
    Json,
    NumWorkers,
    RecipeName,
    RunsFolder,
    SaveEvery,
    ScaleLr,
    Shards,
)
from pipelines.cli.values import read_config, training_options


def register(app: typer.Typer) -> None:
    """Add this file's verbs to the command line."""
    for verb in (recipes, train):
        app.command(rich_help_panel="Training")(verb)


def recipes(
    flops: Annotated[
        bool, typer.Option("--flops", help="Count giga multiply-adds per video, and parameters, by part.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the recipes, or what each of them costs."""
    import json

    from pipelines.recipes import RECIPES, about

    if flops:
        from rich.console import Console

        from pipelines.reporting.recipe_costs import cost_table, recipe_cost
    if as_json:
        rows = [{"recipe": name, "about": about(name), **(recipe_cost(name) if flops else {})} for name in RECIPES]
        typer.echo(json.dumps(rows))
    elif flops:
        Console().print(cost_table({name: recipe_cost(name) for name in RECIPES}))
    else:
        typer.echo("\n".join(f"{name:18} {about(name)}" for name in RECIPES))


def train(
    recipe: RecipeName,
    shards: Shards,
    runs: RunsFolder = DEFAULT_RUNS,
    name: Annotated[str | None, typer.Option(help="Name of the run in MLflow [the recipe's].")] = None,
    changes: Changes = None,
    scale_lr: ScaleLr = False,
    device: Device = "auto",
    num_workers: NumWorkers = 0,
    eval_every: EvalEvery = 1,
    save_every: SaveEvery = 300,
) -> None:
    """Train one configuration through all stages. Start it again to go on after a stop."""
    from pipelines.paths import Places
    from pipelines.training.train import train as run

    config, places = read_config(recipe, changes, scale_lr), Places.of(shards, runs)
    options = training_options(device, num_workers, eval_every, save_every)
    folder = run(config, recipe, places, options, name or recipe)
    typer.echo(f"finished: {folder}")
