"""Verbs about models on disk: import-checkpoint, export-checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import Changes, RecipeName
from pipelines.cli.values import exactly_one, read_config
from preprocessing.schema import UserError


def register(app: typer.Typer) -> None:
    """Add this file's verbs to the command line."""
    for verb in (import_checkpoint, export_checkpoint):
        app.command(rich_help_panel="Models")(verb)


def import_checkpoint(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="A .pth.tar of the authors' code or of the Temporal Shift Module, or several that make one model; "
            "glancer=FILE takes one part of a file.",
        ),
    ],
    recipe: RecipeName,
    out: Annotated[Path | None, typer.Option(help="Folder for the checkpoint.")] = None,
    runs: Annotated[
        Path | None, typer.Option(help="Instead: folder of stage results, where `adafocus train` goes on from it.")
    ] = None,
    shards: Annotated[
        str | None, typer.Option(help="Data set to take the class names from; with --runs that of the training.")
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="Stage whose result this is, such as warmup [by its parts].")
    ] = None,
    changes: Changes = None,
) -> None:
    """Turn released checkpoints into ours: safetensors and meta.json. Nothing in a file is unpickled but tensors."""
    from adafocus import checkpoint
    from adafocus.interop import reference_checkpoints, reference_names
    from pipelines.training.import_checkpoint import describe_import, save_as_stage

    exactly_one(out=out, runs=runs)
    if runs and not shards:
        raise UserError("--runs needs --shards: a stage's result belongs to a data set")
    config = read_config(recipe, changes, scale_lr=False)
    imported, records = reference_checkpoints.import_files(
        [reference_checkpoints.Source.parse(file) for file in files], config
    )
    stage = stage or imported.stage
    meta = describe_import(imported, config, recipe, stage, shards, records)
    folder = save_as_stage(runs, imported, meta) if runs else out or Path()
    if out:
        checkpoint.save(out, imported.model, meta)
    fresh = [part for part in reference_names.parts_of(config, stage) if part not in imported.parts]
    typer.echo(
        f"{folder}: {', '.join(imported.parts)} of stage {stage}, {imported.model.num_classes} classes"
        + (f"; no file held the {', '.join(fresh)}: random weights" if fresh else "")
    )


def export_checkpoint(
    folder: Annotated[Path, typer.Argument(help="A checkpoint's folder, such as runs/finetune-...")],
    out: Annotated[Path, typer.Option(help="The .pth.tar to write.")],
) -> None:
    """Write a checkpoint in the layout of the authors' code, key for key."""
    from pipelines.training.export_checkpoint import export_checkpoint as export

    meta, written = export(folder, out)
    typer.echo(f"{', '.join(map(str, written))}: stage {meta.stage}")
