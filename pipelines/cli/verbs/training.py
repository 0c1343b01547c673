"""Verbs of training: recipes, train, calibrate. (`tune` has a file of its own.)"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import (
    DEFAULT_RUNS,
    Changes,
    CheckpointFolder,
    Device,
    EvalEvery,
    Json,
    NumWorkers,
    RecipeName,
    RunName,
    RunsFolder,
    SaveEvery,
    ScaleLr,
    Shards,
    SweepName,
)
from pipelines.cli.values import exactly_one, read_config, training_options

if TYPE_CHECKING:
    from adafocus.evaluation.calibration import CalibrationClips


def register(app: typer.Typer) -> None:
    """Add this file's verbs to the command line."""
    for verb in (recipes, train, calibrate):
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
    reader: Annotated[
        str | None, typer.Option(help="random (single frames) or stream (whole shards) [the recipe's data.reader].")
    ] = None,
    eval_every: EvalEvery = 1,
    save_every: SaveEvery = 300,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="On a GPU, the same bits in every run; may be slower.")
    ] = False,
) -> None:
    """Train one configuration through all stages. Start it again to go on after a stop."""
    from pipelines.machine.checks import say_troubles
    from pipelines.paths import Places
    from pipelines.training.train import train as run

    changes = [*(changes or ()), *([f"data.reader={reader}"] if reader else ())]
    config, places = read_config(recipe, changes, scale_lr), Places.of(shards, runs)
    options = training_options(device, num_workers, eval_every, save_every, deterministic)
    say_troubles(num_workers)
    folder = run(config, recipe, places, options, name or recipe)
    typer.echo(f"finished: {folder}")


class ExitCriterion(StrEnum):
    """How sure a prediction is: its largest logit, or the negative entropy of its probabilities."""

    CONFIDENCE = "confidence"
    ENTROPY = "entropy"


class ClipsFrom(StrEnum):
    """Clips that the model was trained on, or that its training has left out."""

    TRAIN = "train"
    HELD_OUT = "held-out"


def calibrate(
    shards: Shards,
    runs: RunsFolder = DEFAULT_RUNS,
    run: RunName = None,
    sweep: SweepName = None,
    checkpoint: CheckpointFolder = None,
    criterion: Annotated[
        ExitCriterion, typer.Option(help="How sure a prediction is: its largest logit, or its entropy.")
    ] = ExitCriterion.CONFIDENCE,
    clips: Annotated[
        ClipsFrom | None,
        typer.Option(help="Clips that it was trained on, or that data.held_out left out [those, if there are any]."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Clips per batch.", min=1)] = 32,
    device: Device = "auto",
    num_workers: NumWorkers = 0,
    as_json: Json = False,
) -> None:
    """Solve thresholds of early exit for a row of budgets, and keep them with the model. Nothing is trained."""
    import json
    from dataclasses import asdict

    from pipelines.paths import Places
    from pipelines.tracking.models.checkpoints import find_checkpoint
    from pipelines.training.calibrate import calibrate_selected

    exactly_one(run=run, sweep=sweep, checkpoint=checkpoint)
    places = Places.of(shards, runs)
    selected = find_checkpoint(places, run=run, sweep=sweep, folder=checkpoint)
    kind: CalibrationClips | None = clips.value if clips else None
    options = training_options(device, num_workers)
    found = calibrate_selected(selected, places, options, criterion.value, kind, batch_size)
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    of = {"train": "that it was trained on", "held-out": "that its training has left out"}[found.clips]
    typer.echo(
        f"{selected.folder}: thresholds for {len(found.budgets)} budgets, {found.budgets[0]:.4g} to "
        f"{found.budgets[-1]:.4g} GFLOPs per video, from {found.num_clips} clips {of}"
    )
