"""Verbs that use a trained model: predict, export, share."""

from __future__ import annotations

import json
import logging
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from pipelines.cli.options import DEFAULT_RUNS, CheckpointFolder, Device, RunName, RunsFolder, SweepName
from pipelines.cli.values import exactly_one
from preprocessing.schema import UserError
from preprocessing.sources import readable_name, short_name

if TYPE_CHECKING:
    from adafocus.config.schema import Precision
    from adafocus.models.adafocus import Patches
    from pipelines.serving.predict import VideoOutcome

log = logging.getLogger(__name__)


def register(app: typer.Typer) -> None:
    """Add this file's verbs to the command line."""
    for verb in (predict, export, share):
        app.command(rich_help_panel="Models")(verb)


def predict(
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO...", help="Files, folders and quoted globs.")],
    run: RunName = None,
    sweep: SweepName = None,
    checkpoint: CheckpointFolder = None,
    runs: RunsFolder = DEFAULT_RUNS,
    top: Annotated[int, typer.Option(help="Classes that are named per video.", min=0)] = 5,
    budget: Annotated[
        float | None,
        typer.Option(help="Stop each video when the model is sure: mean GFLOPs per video that it may take.", min=0),
    ] = None,
    patches: Annotated[str, typer.Option(help="Where to look: policy, random or centre.")] = "policy",
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="Of the image networks: float32, bf16 or fp16.")] = "float32",
    decoders: Annotated[int, typer.Option(help="Videos decoded at once; 0: half of the cores.", min=0, max=1000)] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds that decoding one video may take.", min=0.1)] = 3600.0,
    explain: Annotated[
        Path | None,
        typer.Option(help="Write OUT.png, OUT.mp4 and OUT.html of a video; of several, into the folder OUT."),
    ] = None,
    boxes: Annotated[
        Path | None, typer.Option(help="A boxes.csv with the videos' objects, which --explain draws too.")
    ] = None,
    shards: Annotated[
        str | None, typer.Option(help="Data set of a checkpoint that does not say how its frames were extracted.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line, as they finish.")] = False,
) -> None:
    """Say what videos show, where the model looked, and what it cost. Exit status 1 if a file could not be read."""
    import torch

    from pipelines.logs import in_a_line
    from pipelines.paths import Places
    from pipelines.progress import print_above, progress
    from pipelines.serving.predict import AdaFocusPredictor, default_decoders, predict_all
    from pipelines.serving.videos import find_videos
    from pipelines.tracking.models.checkpoints import find_checkpoint
    from preprocessing.media.extraction import Limits

    exactly_one(run=run, sweep=sweep, checkpoint=checkpoint)
    if patches not in ("policy", "random", "centre"):
        raise UserError(f"--patches is {patches!r}, but has to be policy, random or centre")
    if precision not in ("float32", "bf16", "fp16"):
        raise UserError(f"--precision is {precision!r}, but has to be float32, bf16 or fp16")
    if boxes and not explain:
        raise UserError("--boxes only says what --explain draws: give both")
    if explain:  # imported only then, like MLflow below: each takes half a second or more
        from pipelines.visualize.explain.explain import explain as write_pictures
        from pipelines.visualize.known_boxes import KnownBoxes
    known = KnownBoxes(boxes) if boxes else None
    paths = find_videos(videos)
    if explain:
        if not explain.name:
            raise UserError(f"--explain {explain} names no file: give the beginning of the pictures' names")
        (explain.parent if len(paths) == 1 else explain).mkdir(parents=True, exist_ok=True)  # before any decoding
    places = Places.of(shards or "", runs)
    selected = find_checkpoint(places, run=run, sweep=sweep, folder=checkpoint)
    if selected.run_id and not shards:
        from pipelines.tracking.client import Tracker

        shards = Tracker.at(places).shards_of(selected.run_id)
    model = AdaFocusPredictor(
        selected.folder,
        device=device,
        precision=cast("Precision", precision),
        patches=cast("Patches", patches),
        shards=shards,
        limits=Limits(timeout_s=timeout),
        budget=budget,
    )
    decoders = decoders or default_decoders(model.device)
    if model.device.type == "cpu":
        torch.set_num_threads(max(torch.get_num_threads() - decoders, 1))
    failed, unexplained, names, started = 0, 0, list[Path](), time.monotonic()
    total = model.gflops["total"]
    if model.rule is not None and not as_json:
        typer.echo(f"budget: {model.rule.budget:.4g} of {total:.4g} GFLOPs per video in the mean")
    spent = list[float]()
    with progress(len(paths)) if len(paths) > 1 else nullcontext() as report:
        for done, video in enumerate(predict_all(model, paths, decoders), 1):
            failed += bool(video.error)
            spent += [video.prediction.gflops["total"]] if video.prediction else []
            print_above(json.dumps(video.row(top)) if as_json else _text(video, top))
            if explain and video.prediction and video.clip:
                out = explain if len(paths) == 1 else explain / f"{len(names):04d}-{short_name(video.path.stem)}"
                names.append(out)
                clip = known.add(model, video.clip) if known else video.clip
                try:
                    for path in write_pictures(model, clip, video.prediction, out):
                        log.info("wrote %s", path)
                except (ValueError, RuntimeError, UserError) as error:
                    unexplained += 1
                    log.error("%s cannot be explained: %s", readable_name(str(video.path)), in_a_line(error))
            if report:
                rate = done / (time.monotonic() - started)
                report(1, f"{done}/{len(paths)} videos, {failed} unreadable, {rate:.1f} videos/s")
    if model.rule is not None and len(spent) > 1:
        mean = sum(spent) / len(spent)
        typer.echo(f"{mean:.4g} GFLOPs per video in the mean, {mean / total:.0%} of whole clips", err=True)
    if failed:
        typer.echo(f"{failed} of {len(paths)} videos could not be read", err=True)
    if failed or unexplained:
        raise typer.Exit(1)


def export(
    out: Annotated[Path, typer.Option(help="Folder to write; it must not exist.")],
    run: RunName = None,
    sweep: SweepName = None,
    checkpoint: CheckpointFolder = None,
    runs: RunsFolder = DEFAULT_RUNS,
    shards: Annotated[str | None, typer.Option(help="Data set to compare on [the one that the run logged].")] = None,
    video: Annotated[list[Path] | None, typer.Option(help="Compare on this video instead; may be repeated.")] = None,
) -> None:
    """Write a model as torch.export and ONNX files, checked, with all that another program needs to use them.

    Of a run or a sweep the checkpoint is logged to MLflow too, as a model that it loads and serves.
    """
    from pipelines.paths import Places
    from pipelines.serving.export import export as write
    from pipelines.serving.log_model import log_model
    from pipelines.tracking.client import Tracker
    from pipelines.tracking.models.checkpoints import find_checkpoint

    exactly_one(run=run, sweep=sweep, checkpoint=checkpoint)
    places = Places.of(shards or "", runs)
    selected = find_checkpoint(places, run=run, sweep=sweep, folder=checkpoint)
    shards = shards or (Tracker.at(places).shards_of(selected.run_id) if selected.run_id else None)
    facts = write(selected.folder, out, shards=shards, videos=video or (), title=selected.name)
    worst = max(part[f"{kind}_error"] for part in facts["programs"].values() for kind in ("pt2", "onnx"))
    typer.echo(f"{out}: {', '.join(facts['programs'])} as .pt2 and .onnx, off by {worst:.1e} at most")
    if selected.run_id:
        typer.echo(f"MLflow model: {log_model(Tracker.at(places).open(selected.run_id), out)}")


def share(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    run: RunName = None,
    sweep: SweepName = None,
    checkpoint: CheckpointFolder = None,
    runs: RunsFolder = DEFAULT_RUNS,
    shards: Annotated[
        str | None, typer.Option(help="Data set of a checkpoint that does not say how its frames were extracted.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights, such as cc-by-4.0 [none is named].")] = "",
    push: Annotated[str | None, typer.Option(help="Upload it to Hugging Face's hub too, as USER/NAME.")] = None,
    public: Annotated[bool, typer.Option("--public", help="There for everybody to see.")] = False,
) -> None:
    """Write a model as a folder to share: config.json, model.safetensors, and a model card from what MLflow knows."""
    from pipelines.paths import Places
    from pipelines.serving.hub import push as upload
    from pipelines.serving.share import share as write
    from pipelines.tracking.models.checkpoints import find_checkpoint

    exactly_one(run=run, sweep=sweep, checkpoint=checkpoint)
    if public and push is None:
        raise UserError("--public is of the hub: give --push USER/NAME")
    places = Places.of(shards or "", runs)
    selected = find_checkpoint(places, run=run, sweep=sweep, folder=checkpoint)
    write(selected, places, out, licence=licence, hub_name=push or "")
    typer.echo(f"{out}: a model to share; AdaFocusPredictor.from_pretrained({str(out)!r}) reads it")
    if push is not None:
        typer.echo(f"uploaded: {upload(out, push, private=not public)}")


def _text(video: VideoOutcome, top: int) -> str:
    """A prediction for readers."""
    prediction, path = video.prediction, readable_name(str(video.path))
    if prediction is None:
        return f"{path}\n  {video.error}"
    damage = f", damaged: {prediction.source.error}" if prediction.source.error else ""
    course = "   ".join(f"{count}: {name} {p:.0%}" for count, name, p in prediction.course())
    gflops = ", ".join(f"{part} {value:.3g}" for part, value in prediction.gflops.items() if part != "total")
    times = ", ".join(f"{part} {value:.0f}" for part, value in prediction.times_ms.items())
    return "\n".join(
        [
            f"{path}  ({prediction.source.num_frames} frames{damage})",
            *(f"  {p:6.1%}  {name}" for name, p in prediction.top(top)),
            f"  after  {course}",
            f"  cost   {prediction.gflops['total']:.3g} GFLOPs ({gflops})",
            f"  time   {sum(prediction.times_ms.values()):.0f} ms ({times})",
        ]
    )
