"""Progress of long work: a bar on a terminal, a plain line every ten seconds in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

log = logging.getLogger(__name__)

Report = Callable[[float, str], None]
"""report(amount, text): so much more of the total is done, and `text` says in words where the work stands."""


@contextmanager
def progress(total: float, *, stream: TextIO | None = None, interval_s: float = 10.0) -> Iterator[Report]:
    """Show the progress of work of size `total` on `stream` (standard error) if that is a terminal, else in the log.

    Both show the text that was reported last and about how long the rest will take. The log gets a line at most every
    `interval_s` seconds, and one when all is done.
    """
    stream = stream or sys.stderr
    if not stream.isatty():
        yield _LogLines(total, interval_s).report
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    # What is printed to the same terminal appears above the bar; what goes into a file or a pipe is left alone.
    with Progress(*columns, console=Console(file=stream), redirect_stdout=sys.stdout.isatty()) as bar:
        row = bar.add_task("", total=total)
        yield lambda amount, text: bar.update(row, advance=amount, description=text)


class _LogLines:
    """The lines that a log gets."""

    def __init__(self, total: float, interval_s: float) -> None:
        self._total, self._interval_s = total, interval_s
        self._started = self._last = time.monotonic()
        self._done = 0.0

    def report(self, amount: float, text: str) -> None:
        now = time.monotonic()
        self._done += amount
        if now - self._last < self._interval_s and self._done < self._total:
            return
        self._last = now
        if 0 < self._done < self._total:
            left_s = (now - self._started) * (self._total - self._done) / self._done
            text = f"{text}, {left_s / 60:.1f} min left"
        log.info(text)
