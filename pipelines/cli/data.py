"""Verbs of the data half: preprocess, verify, inspect."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from preprocessing.addresses import without_secrets
from preprocessing.schema import MIN_FRAMES, ExtractionSpec, UserError

Json = Annotated[bool, typer.Option("--json", help="Print rows for programs instead of a table.")]
RunsDir = Annotated[Path, typer.Option(envvar="ADAFOCUS_RUNS", help="Folder of stage results and the MLflow store.")]
RUNS = Path("runs")
OutDir = Annotated[str, typer.Argument(metavar="DIR", help="Folder or URL of a preprocessed data set.")]


def register(app: typer.Typer) -> None:
    """Add this file's verbs to the command line."""
    for verb in (preprocess, verify, inspect):
        app.command(rich_help_panel="Data")(verb)


def preprocess(
    dataset: Annotated[str, typer.Option(help="activitynet, fcvid, minikinetics, ssv1, ssv2, folder or synthetic.")],
    out: Annotated[str, typer.Option(help="Folder or URL (s3://, gs://) for the shards.")],
    data_root: Annotated[Path | None, typer.Option(help="Folder of videos and annotations [data/<dataset>].")] = None,
    splits: Annotated[str | None, typer.Option(help="Comma-separated: train,val,test [all].")] = None,
    height: Annotated[int, typer.Option(help="Height of the frames in pixels.")] = 360,
    fps: Annotated[str, typer.Option(help="Frames per second, or native for every frame.")] = "native",
    max_frames: Annotated[int | None, typer.Option(help="Stop a clip after so many frames.")] = None,
    quality: Annotated[int, typer.Option(help="JPEG quality of ffmpeg, 2 (best) to 31.")] = 2,
    profile: Annotated[str, typer.Option(help="clean (as decoded) or paper (the reference's recipe).")] = "clean",
    clips_per_shard: Annotated[int, typer.Option(help="Clips in one tar file.")] = 64,
    limit: Annotated[int | None, typer.Option(help="Only the first clips of each split.")] = None,
    drop_damaged: Annotated[bool, typer.Option(help="Leave out clips whose decoder reports errors.")] = False,
    retry_failed: Annotated[bool, typer.Option(help="Extract only the clips that failed before.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds that one clip may take.")] = 3600.0,
    max_failures: Annotated[str, typer.Option(help="More failed clips than this (5% or 20): exit status 1.")] = "5%",
    dry_run: Annotated[bool, typer.Option(help="Only estimate clips, bytes and time, from a sample.")] = False,
    ray_address: Annotated[str | None, typer.Option(help="Ray cluster to use, e.g. auto [start one here].")] = None,
    runs: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Cut videos into frames and pack them into shards with an index. Start it again to go on after a stop."""
    from pipelines.preprocess.extract import describe, estimate
    from pipelines.preprocess.extract import preprocess as run
    from pipelines.tracking.client import Tracker
    from preprocessing.media.ffmpeg import Limits

    spec = _spec(height, fps, quality, max_frames, profile)
    allowed = _failure_limit(max_failures)
    root = data_root or Path("data") / dataset
    chosen = splits.split(",") if splits else None
    if clips_per_shard < 1 or (limit is not None and limit < 1):
        raise UserError("--clips-per-shard and --limit have to be at least 1")
    if dry_run:
        told = estimate(dataset, root, out, spec=spec, splits=chosen, limit=limit, clips_per_shard=clips_per_shard)
        typer.echo(json.dumps(told) if as_json else _estimate_text(told))
        return
    summary = run(
        dataset,
        root,
        out,
        spec=spec,
        splits=chosen,
        limit=limit,
        clips_per_shard=clips_per_shard,
        limits=Limits(timeout_s=timeout),
        drop_damaged=drop_damaged,
        retry_failed=retry_failed,
        ray_address=ray_address,
    )
    tracked = Tracker(runs).run(summary["dataset"], "preprocess", "preprocess", digest=summary["digest"])
    tracked.summary("preprocess", describe(summary))
    tracked.finish()
    typer.echo(json.dumps(summary) if as_json else _summary_text(summary))
    if allowed(summary["failed"], summary["clips"]):
        typer.echo(
            f"more than {max_failures} of the clips failed: "
            f"`adafocus inspect {without_secrets(out)} --failed` lists them",
            err=True,
        )
        raise typer.Exit(1)


def verify(out: OutDir, as_json: Json = False) -> None:
    """Read every shard and check it against the index: sizes, hashes, frames, rows. Exit status 1 for problems."""
    from dataclasses import asdict

    from preprocessing.shards.storage import Store
    from preprocessing.shards.verify import Problem
    from preprocessing.shards.verify import verify as check

    problems, shards, num_bytes = [], 0, 0
    for found in check(Store(out)):
        if isinstance(found, Problem):
            problems.append(found)
            if not as_json:
                typer.echo(" ".join(part for part in (found.shard, found.clip_id, found.what) if part))
        else:
            shards, num_bytes = shards + 1, num_bytes + found.num_bytes
    if as_json:
        told = {"shards": shards, "num_bytes": num_bytes, "problems": [asdict(item) for item in problems]}
        typer.echo(json.dumps(told))
    else:
        typer.echo(f"{shards} shards, {num_bytes / 1e9:.2f} GB read: {len(problems) or 'no'} problems")
    if problems:
        raise typer.Exit(1)


def inspect(
    out: OutDir,
    failed: Annotated[bool, typer.Option("--failed", help="List the clips that have no frames, and why.")] = False,
    damaged: Annotated[bool, typer.Option("--damaged", help="List the damaged clips, and why.")] = False,
    sheet: Annotated[Path | None, typer.Option(help="Write a PNG contact sheet of sampled frames there.")] = None,
    clips: Annotated[int, typer.Option(help="Clips on the sheet.")] = 8,
    frames: Annotated[int, typer.Option(help="Frames per clip on the sheet.")] = 6,
    seed: Annotated[int, typer.Option(help="Which clips are drawn.")] = 0,
    as_json: Json = False,
) -> None:
    """What is in a data set: clips by split, class and status, frame statistics, sizes."""
    from preprocessing.shards.contact_sheet import contact_sheet
    from preprocessing.shards.index import read_index
    from preprocessing.shards.statistics import clip_rows, statistics, statistics_text
    from preprocessing.shards.storage import Store

    store = Store(out)
    index = read_index(store)
    if sheet is not None:
        contact_sheet(store, index, sheet, clips=clips, frames=frames, seed=seed)
    if failed or damaged:
        rows = clip_rows(index, failed=failed, damaged=damaged)
        if as_json:
            typer.echo(json.dumps(rows))
        else:
            for row in rows:
                typer.echo("\t".join(row[name] for name in ("status", "split", "clip_id", "source", "error")))
        return
    told = statistics(index)
    typer.echo(json.dumps(told) if as_json else statistics_text(told, store.shown))


def _spec(height: int, fps: str, quality: int, max_frames: int | None, profile: str) -> ExtractionSpec:
    """Check the options that decide the frames. Raises UserError naming the option."""
    if profile not in ("clean", "paper"):
        raise UserError(f"--profile is {profile!r}, but has to be clean or paper")
    if profile == "paper" and quality != 2:
        raise UserError("--quality has no effect with --profile paper, which uses ffmpeg's default; leave it out")
    try:
        rate = None if fps == "native" else float(fps)
    except ValueError:
        raise UserError(f"--fps is {fps!r}, but has to be native or a number") from None
    checks = {
        "--height 16 to 4320": 16 <= height <= 4320,
        "--fps above 0 and at most 240": rate is None or 0 < rate <= 240,
        "--quality 2 to 31": 2 <= quality <= 31,
        f"--max-frames at least {MIN_FRAMES}": max_frames is None or max_frames >= MIN_FRAMES,
    }
    for rule, kept in checks.items():
        if not kept:
            raise UserError(f"allowed is {rule}")
    return ExtractionSpec(
        height=height,
        fps=rate,
        quality=quality,
        max_frames=max_frames,
        profile="paper" if profile == "paper" else "clean",
    )


def _failure_limit(text: str) -> Callable[[int, int], bool]:
    """Does a number of failed clips, of so many, exceed what --max-failures allows?"""
    try:
        value = float(text.rstrip("%"))
    except ValueError:
        raise UserError(f"--max-failures is {text!r}, but has to be like 5% or 20") from None
    if text.endswith("%"):
        return lambda failed, clips: failed > clips * value / 100
    return lambda failed, clips: failed > value


def _summary_text(summary: dict[str, Any]) -> str:
    statuses = ", ".join(f"{number} {status}" for status, number in summary["statuses"].items())
    splits = ", ".join(f"{number} {split}" for split, number in summary["splits"].items())
    lines = [
        f"{summary['dataset']} in {summary['out']}: {summary['clips']} clips ({splits}) from {summary['annotations']}",
        f"  {statuses}",
        f"  {summary['num_frames']} frames, {summary['num_bytes'] / 1e9:.2f} GB in {summary['shards']} shards, "
        f"{summary['shards_written']} of them written or checked now, in {summary['wall_seconds']:.1f} s",
        f"  digest {summary['digest']}",
    ]
    if summary["listed"]:
        lines.append(
            f"  {summary['listed_match']} of {summary['listed']} clips have exactly the number of frames that the list "
            f"states, {summary['listed_within_1pc']} are within 1 %"
        )
    if summary["failed"]:
        lines.append(f"  {summary['failed']} clips failed: `adafocus inspect {summary['out']} --failed` lists them")
    return "\n".join(lines)


def _estimate_text(told: dict[str, Any]) -> str:
    free = "" if told["free_bytes"] is None else f", {told['free_bytes'] / 1e9:.1f} GB free"
    first = f" (first: {told['first_missing']})" if told["missing"] else ""
    lines = [
        f"{told['dataset']}: {told['clips']} clips from {told['annotations']}",
        f"  {told['found']} found, {told['missing']} missing{first}",
        f"  about {told['num_frames']} frames, {told['num_bytes'] / 1e9:.2f} GB{free}, {told['shards']} shards",
        f"  about {told['cpu_hours']:.2f} CPU-hours, from {told['sampled']} sampled clips",
    ]
    lines += [f"  sample: {clip_id}: {status} {error}" for clip_id, status, error in told["sample_problems"]]
    return "\n".join(lines)
