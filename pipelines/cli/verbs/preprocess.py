"""The verb preprocess: cuts videos into frames and packs them into shards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.options import DEFAULT_RUNS, Json, RayAddress, RunsFolder
from preprocessing.addresses import without_secrets
from preprocessing.schema import MIN_FRAMES, ExtractionSpec, UserError


def register(app: typer.Typer) -> None:
    """Add this file's verb to the command line."""
    app.command(rich_help_panel="Data")(preprocess)


def preprocess(
    dataset: Annotated[str, typer.Option(help="activitynet, fcvid, minikinetics, ssv1, ssv2, folder or synthetic.")],
    out: Annotated[str, typer.Option(help="Folder or URL (s3://, gs://) for the shards.")],
    data_root: Annotated[
        str | None, typer.Option(help="Folder or URL (s3://, gs://) of videos and annotations [data/<dataset>].")
    ] = None,
    splits: Annotated[str | None, typer.Option(help="Comma-separated: train,val,test [all].")] = None,
    height: Annotated[int, typer.Option(help="Height of the frames in pixels.")] = 360,
    fps: Annotated[str, typer.Option(help="Frames per second, or native for every frame.")] = "native",
    max_frames: Annotated[int | None, typer.Option(help="Stop a clip after so many frames.")] = None,
    quality: Annotated[int, typer.Option(help="JPEG quality of ffmpeg, 2 (best) to 31.")] = 2,
    profile: Annotated[str, typer.Option(help="clean (as decoded) or paper (the reference's recipe).")] = "clean",
    tone_map: Annotated[bool, typer.Option(help="Bring HDR and wide colours to those of ordinary screens.")] = True,
    deinterlace: Annotated[bool, typer.Option(help="Make whole pictures of interlaced video.")] = False,
    frames_per_clip: Annotated[
        int | None, typer.Option(help="Pack only the frames that evaluation needs and so many to train on [all].")
    ] = None,
    shard_bytes: Annotated[
        int | None, typer.Option(help="About how many bytes of frames in one tar file [1000000000].", min=1)
    ] = None,
    clips_per_shard: Annotated[int | None, typer.Option(help="Clips in one tar file [by bytes].", min=1)] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first clips of each split.", min=1)] = None,
    drop_damaged: Annotated[bool, typer.Option(help="Leave out clips whose decoder reports errors.")] = False,
    retry_failed: Annotated[bool, typer.Option(help="Extract only the clips that failed before.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds that one clip may take.", min=0.1)] = 3600.0,
    max_failures: Annotated[str, typer.Option(help="More failed clips than this (5% or 20): exit status 1.")] = "5%",
    dry_run: Annotated[bool, typer.Option(help="Only estimate clips, bytes and time, from a sample.")] = False,
    ray_address: RayAddress = None,
    runs: RunsFolder = DEFAULT_RUNS,
    as_json: Json = False,
) -> None:
    """Cut videos into frames and pack them into shards with an index. Start it again to go on after a stop."""
    from pipelines.machine.checks import say_troubles
    from pipelines.preprocess.preprocess_logger import log_summary
    from pipelines.preprocess.request import Request
    from pipelines.preprocess.run import estimate
    from pipelines.preprocess.run import preprocess as run
    from pipelines.tracking.client import Tracker
    from preprocessing.datasets import find_dataset
    from preprocessing.media.extraction import Limits

    spec = _spec(height, fps, quality, max_frames, profile, tone_map, deinterlace, frames_per_clip)
    too_many = _failure_limit(max_failures)
    request = Request(
        dataset,
        Path("data") / dataset if data_root is None else _named(data_root, "--data-root"),
        _named(out, "--out"),
        spec,
        splits=None if splits is None else tuple(split.strip() for split in splits.split(",")),
        limit=limit,
        clips_per_shard=clips_per_shard,
        shard_bytes=shard_bytes,
        limits=Limits(timeout_s=timeout),
        drop_damaged=drop_damaged,
    )
    if dry_run:
        cost = estimate(request)
        typer.echo(json.dumps(cost) if as_json else _estimate_text(cost))
        return
    stop_if_alike = too_many(1 << 40, 1 << 40)  # unless any number of failures is allowed
    say_troubles()
    tracker = Tracker(runs)
    tracker.experiment(find_dataset(dataset).name)  # what is wrong with the store is said before hours of work
    summary = run(request, retry_failed=retry_failed, stop_if_alike=stop_if_alike, ray_address=ray_address)
    log_summary(tracker, summary)
    typer.echo(json.dumps(summary) if as_json else _summary_text(summary))
    if too_many(summary["failed"], summary["clips"]):
        typer.echo(
            f"more than {max_failures} of the clips failed: "
            f"`adafocus inspect {without_secrets(out)} --failed` lists them",
            err=True,
        )
        raise typer.Exit(1)


def _named(folder: str, option: str) -> str:
    """The folder of an option. Raises UserError for an empty name, which would be the working folder."""
    if not folder:
        raise UserError(f"{option} is empty: is a variable of the shell not set?")
    return folder


def _spec(
    height: int,
    fps: str,
    quality: int,
    max_frames: int | None,
    profile: str,
    tone_map: bool,
    deinterlace: bool,
    frames_per_clip: int | None,
) -> ExtractionSpec:
    """The options that decide the frames, checked. Raises UserError naming the option."""
    if profile not in ("clean", "paper"):
        raise UserError(f"--profile is {profile!r}, but has to be clean or paper")
    if profile == "paper" and quality != 2:
        raise UserError("--quality has no effect with --profile paper, which uses ffmpeg's default; leave it out")
    if profile == "paper" and deinterlace:
        raise UserError("--deinterlace would change what --profile paper writes; leave one of them out")
    if profile == "paper" and frames_per_clip is not None:
        raise UserError(
            "--frames-per-clip does not go with --profile paper, where a frame's bytes depend on all before it; leave "
            "one of them out"
        )
    try:
        rate = None if fps == "native" else float(fps)
    except ValueError:
        raise UserError(f"--fps is {fps!r}, but has to be native or a number") from None
    rules = {
        "--height 16 to 4320": 16 <= height <= 4320,
        "--fps above 0 and at most 240": rate is None or 0 < rate <= 240,
        "--quality 2 to 31": 2 <= quality <= 31,
        f"--max-frames at least {MIN_FRAMES}": max_frames is None or max_frames >= MIN_FRAMES,
        "--frames-per-clip 1 to 10000": frames_per_clip is None or 1 <= frames_per_clip <= 10_000,
    }
    for rule, is_kept in rules.items():
        if not is_kept:
            raise UserError(f"allowed is {rule}")
    return ExtractionSpec(
        height=height,
        fps=rate,
        quality=quality,
        max_frames=max_frames,
        profile="paper" if profile == "paper" else "clean",
        tone_map=tone_map,
        deinterlace=deinterlace,
        frames_per_clip=frames_per_clip,
    )


def _failure_limit(text: str) -> Callable[[int, int], bool]:
    """A function of failed clips and all clips: are more failed than --max-failures allows?"""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value <= (100 if text.endswith("%") else 1 << 40):
        raise UserError(f"--max-failures is {text!r}, but has to be like 5% or 20")
    if text.endswith("%"):
        return lambda failed, clips: failed > clips * value / 100
    return lambda failed, clips: failed > value


def _summary_text(summary: dict[str, Any]) -> str:
    from preprocessing.shards.statistics import left_out_text, sources_text

    statuses = ", ".join(f"{number} {status}" for status, number in summary["statuses"].items())
    splits = ", ".join(f"{number} {split}" for split, number in summary["splits"].items())
    lines = [
        f"{summary['dataset']} in {summary['out']}: {summary['clips']} clips ({splits}) from {summary['annotations']}",
        f"  {statuses}",
        f"  {summary['num_frames']} frames, {summary['num_bytes'] / 1e9:.2f} GB in {summary['shards']} shards, "
        f"{summary['shards_written']} of them written or checked now, in {summary['wall_seconds']:.1f} s",
        f"  digest {summary['digest']}",
    ]
    if left_out := left_out_text(summary):
        lines.insert(3, f"  {left_out}")
    if sources := sources_text(summary):
        lines.append(f"  sources: {sources}")
    if summary["listed"]:
        lines.append(
            f"  {summary['listed_match']} of {summary['listed']} clips have exactly the number of frames that the list "
            f"states, {summary['listed_within_1pc']} are within 1 %"
        )
    if summary["failed"]:
        lines.append(f"  {summary['failed']} clips failed: `adafocus inspect {summary['out']} --failed` lists them")
    return "\n".join(lines)


def _estimate_text(cost: dict[str, Any]) -> str:
    free = "" if cost["free_bytes"] is None else f", {cost['free_bytes'] / 1e9:.1f} GB free"
    first = f" (first: {cost['first_missing']})" if cost["missing"] else ""
    lines = [
        f"{cost['dataset']}: {cost['clips']} clips from {cost['annotations']}",
        f"  {cost['found']} found, {cost['missing']} missing{first}",
        f"  about {cost['num_frames']} frames, {cost['num_bytes'] / 1e9:.2f} GB{free}, {cost['shards']} shards",
        f"  about {cost['cpu_hours']:.2f} CPU-hours, from {cost['sampled']} sampled clips",
    ]
    lines += [f"  sample: {clip_id}: {status} {error}" for clip_id, status, error in cost["sample_problems"]]
    return "\n".join(lines)
