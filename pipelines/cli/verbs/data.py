"""Verbs of packed data sets: verify, inspect. (`preprocess` has a file of its own.)"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import Json, ShardsArgument


def register(app: typer.Typer) -> None:
    """Add this file's verbs to the command line."""
    for verb in (verify, inspect):
        app.command(rich_help_panel="Data")(verb)


def verify(out: ShardsArgument, as_json: Json = False) -> None:
    """Read every shard and check it against the index: sizes, hashes, frames, rows. Exit status 1 for problems."""
    from dataclasses import asdict

    from pipelines.progress import print_above, progress
    from preprocessing.shards.index import read_index
    from preprocessing.shards.storage import Store
    from preprocessing.shards.verify import Problem
    from preprocessing.shards.verify import verify as check

    problems, shards, num_bytes, store = [], 0, 0, Store(out)
    index = read_index(store)
    with progress(len(index.shards)) as report:
        for result in check(store, index):
            if isinstance(result, Problem):
                problems.append(result)
                if not as_json:
                    print_above(" ".join(part for part in (result.shard, result.clip_id, result.what) if part))
            else:
                shards, num_bytes = shards + 1, num_bytes + result.num_bytes
                report(1, f"{shards}/{len(index.shards)} shards, {len(problems)} problems")
    if as_json:
        summary = {"shards": shards, "num_bytes": num_bytes, "problems": [asdict(item) for item in problems]}
        typer.echo(json.dumps(summary))
    else:
        typer.echo(f"{shards} shards, {num_bytes / 1e9:.2f} GB read: {len(problems) or 'no'} problems")
    if problems:
        raise typer.Exit(1)


def inspect(
    out: ShardsArgument,
    failed: Annotated[bool, typer.Option("--failed", help="List the clips that have no frames, and why.")] = False,
    damaged: Annotated[bool, typer.Option("--damaged", help="List the damaged clips, and why.")] = False,
    sheet: Annotated[Path | None, typer.Option(help="Write a PNG contact sheet of sampled frames there.")] = None,
    clips: Annotated[int, typer.Option(help="Clips on the sheet.", min=1)] = 8,
    frames: Annotated[int, typer.Option(help="Frames per clip on the sheet.", min=1)] = 6,
    seed: Annotated[int, typer.Option(help="Which clips are drawn.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Show what is in a data set: clips by split, class and status, frame statistics, sizes."""
    from pipelines.visualize.contact_sheet import contact_sheet
    from preprocessing.shards.index import read_index
    from preprocessing.shards.statistics import clip_rows, statistics, statistics_text
    from preprocessing.shards.storage import Store
    from preprocessing.shards.verify import check_rows

    store = Store(out)
    index = read_index(store)
    check_rows(index, store.shown)
    if sheet is not None:
        contact_sheet(store, index, sheet, clips=clips, frames=frames, seed=seed)
    if failed or damaged:
        rows = clip_rows(index, failed=failed, damaged=damaged)
        if as_json:
            typer.echo(json.dumps(rows))
        else:
            for row in rows:
                typer.echo("\t".join(str(row[name]) for name in ("status", "split", "clip_id", "source", "error")))
        return
    facts = statistics(index)
    typer.echo(json.dumps(facts) if as_json else statistics_text(facts, store.shown))
