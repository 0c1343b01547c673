"""The command `adafocus <verb>`: runs a verb, and turns errors into one line and an exit status.

Verbs live in the other files of this folder; each imports what it needs when it runs, so that `--help` is instant.
Exit status: 0 done, 1 finished with failures that are listed, 2 the user has to change something, 3 a fault of this
program, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM: Slurm, Kubernetes, `ray job stop`).
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Annotated

import typer
from typer.core import TyperOption

from adafocus.divergence import ADVICE, DivergedError
from pipelines.cli.verbs import app as page
from pipelines.cli.verbs import data, doctor, models, predict, preprocess, results, runs, training, tune
from pipelines.logs import in_a_line, start_logging
from preprocessing.addresses import without_secrets
from preprocessing.schema import UserError
from preprocessing.sources import readable_name

app = typer.Typer(
    name="adafocus",
    help="AdaFocus video recognition: frames, training in stages, sweeps and benchmarks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for verbs in (preprocess, data, training, tune, results, runs, predict, page, models, doctor):
    verbs.register(app)


FAULT, INTERRUPTED, TERMINATED = 3, 130, 143


def _print_version(requested: bool) -> None:
    if requested:
        from pipelines.version import commit, package_version

        typer.echo(f"adafocus {package_version()} (commit {commit()})")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print version and git commit."),
    ] = False,
) -> None:
    """Declare the options that stand before a verb."""


def command() -> Callable[[], None]:
    """The command line, with the brackets of its help, which Rich would take for its own markup and leave out."""
    whole = typer.main.get_command(app)
    commands = [whole]
    for each in commands:  # grows meanwhile
        commands += getattr(each, "commands", {}).values()
        for option in each.params:
            if isinstance(option, TyperOption) and option.help:
                option.help = option.help.replace("[", r"\[")
    return whole


def main() -> None:
    """Run the command line of this process. Turns UserError into one line and exit status 2, DivergedError into one
    line, advice and exit status 1."""
    sigterms = _interrupt_on_sigterm()
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files and classes may hold what a terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    start_logging()
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # lines of different trials look alike to Ray
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    # Ctrl-C stops a sweep at once: its trials can go on later.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    try:
        _check_working_folder()
        command()()
    except UserError as error:
        print(f"adafocus: {without_secrets(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    except DivergedError as error:
        print(f"adafocus: {error}\n{ADVICE}", file=sys.stderr)
        raise SystemExit(1) from None
    except Exception as error:
        if target := _target_without_space(error):
            print(f"adafocus: no space left for {target}; what is finished is kept", file=sys.stderr)
        elif isinstance(error, OSError):
            print(f"adafocus: {_refusal(error)}; what is finished is kept", file=sys.stderr)
        else:
            print(without_secrets(traceback.format_exc()), end="", file=sys.stderr)
            raise SystemExit(FAULT) from None  # Python's own status is 1, which stands for failures that are listed
        raise SystemExit(2) from None
    except SystemExit as stop:
        if stop.code != INTERRUPTED:  # typer turns Ctrl-C into this status and says nothing
            raise
        word, status = ("terminated", TERMINATED) if sigterms else ("interrupted", INTERRUPTED)
        print(f"adafocus: {word}; start the same command again to go on", file=sys.stderr)
        raise SystemExit(status) from None


def _interrupt_on_sigterm() -> list[int]:
    """Let SIGTERM end the work as Ctrl-C does, with its runs closed in MLflow. Returns a list that gets the signal."""
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not disturb the closing
        received.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    return received


def _check_working_folder() -> None:
    """Raise UserError where the working folder was removed: no relative path leads anywhere then."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("the working folder is there no more: change to another one") from None


def _refusal(error: OSError) -> str:
    """What the system has refused, such as a file that lies where a folder should: which file, and why."""
    if error.filename is None or error.strerror is None:
        return in_a_line(error)
    return without_secrets(f"{readable_name(os.fspath(error.filename))}: {error.strerror}")


def _target_without_space(error: BaseException | None) -> str | None:
    """What could not be written for want of space, where a full disk is the cause of an error; else None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return str(error.filename or "its files")
        if "database or disk is full" in str(error):  # SQLite's words, in one of MLflow's exceptions
            return "the MLflow store"
        error = error.__cause__ or error.__context__
    return None
