"""Verbs about models on disk: import-checkpoint, export-checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from preprocessing.schema import DatasetInfo, ExtractionSpec


def register(app: typer.Typer) -> None:
    """Add this file's verbs to the command line."""
    app.command()(import_checkpoint)
    app.command()(export_checkpoint)


def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="A .pth.tar of the authors' code, or of the Temporal Shift Module.")],
    recipe: Annotated[str, typer.Option(help="Recipe that the file belongs to.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint.")],
    shards: Annotated[str | None, typer.Option(help="Data set to take the class names from.")] = None,
) -> None:
    """Turn a released checkpoint into ours: safetensors and meta.json. Nothing in the file is unpickled but tensors."""
    from adafocus import checkpoint, convert
    from adafocus.loader import ClipLoader
    from pipelines.recipes import find_recipe
    from preprocessing.index import read_index
    from preprocessing.storage import Store

    config = find_recipe(recipe)
    imported = convert.import_checkpoint(file, config)
    classes = imported.model.num_classes
    info = DatasetInfo(recipe.rsplit("-", 1)[0], tuple(f"class {number}" for number in range(classes)))
    digest, spec = "", ExtractionSpec()  # the height of the authors' frames
    if shards:
        info, digest = ClipLoader.describe(shards)
        spec = read_index(Store(shards), columns=[]).spec
    meta = checkpoint.Meta.describe(config, stage=imported.stage, info=info, extraction=spec, digest=digest)
    checkpoint.save(out, imported.model, meta)
    typer.echo(f"{out}: {', '.join(imported.parts)} of stage {imported.stage}, {classes} classes")


def export_checkpoint(
    folder: Annotated[Path, typer.Argument(help="A checkpoint's folder, such as runs/finetune-...")],
    out: Annotated[Path, typer.Option(help="The .pth.tar to write.")],
) -> None:
    """Write a checkpoint in the layout of the authors' code, key for key."""
    from adafocus import checkpoint, convert

    model, meta = checkpoint.load_model(folder)
    convert.export_checkpoint(model, out, stage=meta.stage)
    typer.echo(f"{out}: stage {meta.stage}")
