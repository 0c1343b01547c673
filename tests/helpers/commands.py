"""The command line as it is: verbs and their options."""

from __future__ import annotations

import typer

from pipelines.cli.main import app

GROUP = typer.main.get_command(app)


def options_of(verb: str) -> set[str]:
    command = GROUP.commands[verb]
    return {option for parameter in command.params for option in parameter.opts} | {"--help"}
