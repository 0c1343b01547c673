"""Verbs `runs list|show|prune`: the stages on disk, who uses them, and what can go."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.options import DEFAULT_RUNS, Json, RunsFolder
from preprocessing.schema import UserError

if TYPE_CHECKING:
    from pipelines.sweeps.stages.storage import StoredFolder


def register(app: typer.Typer) -> None:
    """Add this file's verbs to the command line, below `runs`."""
    group = typer.Typer(help="Stages on disk: what there is, who uses it, what can go.", no_args_is_help=True)
    group.command("list")(list_stages)
    group.command("show")(show_stage)
    group.command("prune")(prune_stages)
    app.add_typer(group, name="runs", rich_help_panel="Results")


def list_stages(runs: RunsFolder = DEFAULT_RUNS, as_json: Json = False) -> None:
    """List the stages on disk, with their size and who uses them, and what Ray Tune has left."""
    from rich.console import Console
    from rich.table import Table

    from pipelines.paths import Places
    from pipelines.sweeps.stages.storage import list_folders

    folders = list_folders(Places.of("", runs))
    if as_json:
        typer.echo(json.dumps([_facts(each) for each in folders]))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("stage", "MB", "status", "used by"):
        table.add_column(heading, no_wrap=heading != "used by", justify="right" if heading == "MB" else "left")
    for each in folders:
        more = f" and {len(each.users) - 3} more" if len(each.users) > 3 else ""
        table.add_row(each.name, _megabytes(each), each.status, ", ".join(each.users[:3]) + more)
    Console().print(table)
    removable = [each for each in folders if each.removable]
    typer.echo(
        f"{len(folders)} folders, {_total(folders)}; {len(removable)} of them can go, {_total(removable)}: "
        "`adafocus runs prune`"
    )


def show_stage(
    name: Annotated[str, typer.Argument(help="A stage's folder, or the beginning of its name.")],
    runs: RunsFolder = DEFAULT_RUNS,
    as_json: Json = False,
) -> None:
    """Show one stage: who uses it, its configuration, what it reached."""
    from adafocus.checkpoint import read_meta
    from pipelines.paths import Places
    from pipelines.sweeps.stages.storage import find_folder

    stored = find_folder(Places.of("", runs), name)
    facts = _facts(stored)
    if stored.finished:
        meta = read_meta(stored.folder)
        facts |= {"seconds": round(meta.seconds, 1), "metrics": meta.metrics, "config": meta.config}
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            typer.echo(f"{key}:")
            for inner, text in value.items():
                typer.echo(f"  {inner}: {text}")
        else:
            typer.echo(f"{key}: {', '.join(value) if isinstance(value, list) else value}")


def prune_stages(
    runs: RunsFolder = DEFAULT_RUNS,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove stages that no trial uses, unfinished ones that nobody trains, and Ray Tune's files of sweeps that ended.

    A sweep uses its stages as long as its record, sweeps/NAME.json below --runs, is there.
    """
    from pipelines.paths import Places
    from pipelines.sweeps.stages.storage import list_folders, remove_folders

    places = Places.of("", runs)
    removable = [each for each in list_folders(places) if each.removable]
    for each in removable:
        again = f"; {', '.join(each.users)} would begin it anew" if each.users else ""
        typer.echo(f"{each.name}  {_megabytes(each)} MB  {each.status}{again}")
    if not removable or dry_run:
        typer.echo(f"{len(removable)} folders would go, {_total(removable)}" if removable else "nothing can go")
        return
    if not yes and not typer.confirm(f"Remove these {len(removable)} folders, {_total(removable)}?"):
        raise UserError("nothing was removed")
    removed = remove_folders(places, removable)
    typer.echo(f"{len(removed)} folders removed, {_total(removed)}")


def _facts(stored: StoredFolder) -> dict[str, Any]:
    return {
        "stage": stored.name,
        "bytes": stored.num_bytes,
        "status": stored.status,
        "users": list(stored.users),
        "can_go": stored.removable,
    }


def _megabytes(stored: StoredFolder) -> str:
    return f"{stored.num_bytes / 1e6:.1f}"


def _total(stored: list[StoredFolder]) -> str:
    return f"{sum(each.num_bytes for each in stored) / 1e6:.1f} MB"
