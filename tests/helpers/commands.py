"""Commands on pages and in scripts, checked against the command line as it is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import typer
import typer.core

from adafocus.config.overrides import flatten
from adafocus.config.schema import Config
from pipelines.cli.main import app
from pipelines.recipes import find_recipe
from pipelines.sweeps.search.scheduler_table import find_scheduler
from preprocessing.datasets import find_dataset

GROUP = typer.main.get_command(app)
OPEN = re.compile(r"\.\.\.|<")
"""What marks a word of a command as left open."""


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of every fenced block of a page."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def inline(text: str) -> list[str]:
    """What stands between back-quotes outside of blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def shell_commands(lines: str, program: str) -> list[list[str]]:
    """Words of every command of a program in lines of shell, whatever folder the program is in."""
    commands, left = list[list[str]](), ""
    for line in lines.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(left + line, posix=True, punctuation_chars=";|&<>")
        lexer.whitespace_split = True
        try:
            tokens = [*lexer, ";"]
        except ValueError:  # a quotation that goes on in the next line
            left += f"{line}\n"
            continue
        words, left = list[str](), ""
        for token in tokens:
            if set(token) <= set(";|&<>"):
                if words and Path(words[0]).name == program:
                    commands.append([program, *words[1:]])
                words = []
            elif words or not re.fullmatch(r"\w+=.*", token, re.DOTALL):  # variables before a command
                words.append(token)
    assert not left, left
    return commands


def command_of(words: list[str]) -> tuple[typer.core.TyperCommand, list[str]]:
    """The (nested) command that words name, and the arguments that are left. Fails for a verb that does not exist."""
    command, left = GROUP, words[1:]
    while left and (verbs := getattr(command, "commands", None)) and not left[0].startswith("-"):
        assert left[0] in verbs, words
        command, left = verbs[left[0]], left[1:]
    return command, left


def options_of(*verbs: str) -> set[str]:
    """Names of a verb's options."""
    command, _ = command_of(["adafocus", *verbs])
    return {option for parameter in command.params for option in parameter.opts} | {"--help"}


def check_mention(words: list[str]) -> None:
    """Verb and option names of a command that need not be complete."""
    command, left = command_of([word for word in words if not OPEN.search(word)])
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {word.split("=")[0] for word in left if word.startswith("--")} <= known, words


def check_command(words: list[str]) -> None:
    """A whole command: click takes its options and values, and the names and settings that it gives exist."""
    if any(OPEN.search(word) for word in words):
        return check_mention(words)
    command, left = command_of(words)
    given: dict[str, Any] = command.make_context(words[1], left).params
    for name, find in (("recipe", find_recipe), ("dataset", find_dataset), ("scheduler", find_scheduler)):
        assert given.get(name) is None or find(given[name])
    for name in ("changes", "grid", "sample"):
        assert {change.split("=")[0] for change in given.get(name) or ()} <= flatten(Config()).keys(), words
    return None
