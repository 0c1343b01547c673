"""The verb doctor: what this machine has, and what of it will get into the way."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from pipelines.cli.options import DEFAULT_RUNS, Json, RunsFolder


def register(app: typer.Typer) -> None:
    """Add this file's verb to the command line."""
    app.command(rich_help_panel="Machine")(doctor)


def doctor(runs: RunsFolder = DEFAULT_RUNS, as_json: Json = False) -> None:
    """Say what this machine has and what will get into the way of work. Exit status 1 if anything will."""
    from pipelines.machine import checks, software

    findings = [
        checks.check_processors(),
        checks.check_shared_memory(),
        checks.check_temporary_folder(),
        checks.check_open_files(),
        checks.check_disk(runs, "results"),
        software.check_ffmpeg(),
        software.check_torch(),
        software.check_gpu(),
        software.check_ray(),
        software.check_store(runs),
    ]
    troubles = sum(bool(each.trouble) for each in findings)
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in findings]))
    else:
        width = max(len(each.subject) for each in findings)
        for each in findings:
            typer.echo(f"{each.subject:<{width}}  {each.value}")
            if each.trouble:
                typer.echo(f"{'':<{width}}  ! {each.trouble}")
    if troubles:
        raise typer.Exit(1)
