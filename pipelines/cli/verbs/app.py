"""The verb app: a page to drop a video on."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import DEFAULT_RUNS, Device, RunsFolder
from preprocessing.schema import UserError

MOST_MODELS = 2


def register(app: typer.Typer) -> None:
    """Add this file's verb to the command line."""
    app.command("app", rich_help_panel="Models")(serve)


def serve(
    run: Annotated[list[str] | None, typer.Option(help="MLflow run: id, name, or sweep and name; two at most.")] = None,
    checkpoint: Annotated[list[Path] | None, typer.Option(help="Model in this folder; two in all.")] = None,
    runs: RunsFolder = DEFAULT_RUNS,
    shards: Annotated[
        str | None, typer.Option(help="Data set whose evaluation clips are the examples [the first run's].")
    ] = None,
    device: Device = "auto",
    host: Annotated[
        str, typer.Option(help="Address to listen on; anything but 127.0.0.1 opens the page to others.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 7860,
    max_mb: Annotated[int, typer.Option(help="Largest upload, in megabytes.", min=1)] = 200,
    timeout: Annotated[float, typer.Option(help="Seconds that decoding one video may take.", min=1)] = 60,
) -> None:
    """Serve a page to drop a video on: boxes, heat map, confidence, cost; one model, or two side by side."""
    from pipelines.app.answer import ShownModel
    from pipelines.app.examples import find_examples
    from pipelines.app.server import serving
    from pipelines.paths import Places
    from pipelines.serving.predict import AdaFocusPredictor
    from pipelines.tracking.client import Tracker
    from pipelines.tracking.models.checkpoints import find_checkpoint
    from preprocessing.media.extraction import Limits

    if not 1 <= len(run or ()) + len(checkpoint or ()) <= MOST_MODELS:
        raise UserError("give --run or --checkpoint, once or twice")
    places = Places.of(shards or "", runs)
    selected = [find_checkpoint(places, run=name, sweep=None, folder=None) for name in run or ()]
    selected += [find_checkpoint(places, run=None, sweep=None, folder=folder) for folder in checkpoint or ()]
    models, shown = [], shards
    for each in selected:
        own = shards or (Tracker.at(places).shards_of(each.run_id) if each.run_id else None)
        shown = shown or own
        limits = Limits(timeout_s=timeout, num_frames=20_000, num_bytes=2 << 30)
        predictor = AdaFocusPredictor(each.folder, device=device, shards=own, limits=limits)
        models.append(ShownModel(each.name or each.folder.name, predictor))
    with serving(models, find_examples(shown) if shown else [], host=host, port=port, max_mb=max_mb) as address:
        typer.echo(f"AdaFocus: {address}  (Ctrl-C stops it)")
        sys.stdout.flush()
        threading.Event().wait()
