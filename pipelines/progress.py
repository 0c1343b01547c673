"""Progress of long work: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

log = logging.getLogger(__name__)

Text = str | Callable[[], str]
"""Where the work stands, in words; a function is only called when it is to be shown."""
Report = Callable[[float, Text], None]
"""report(amount, text): so much more of the total is done, and `text` says where the work stands."""
REFRESH_S = 0.25
"""Seconds between two texts on a terminal."""


@contextmanager
def progress(
    total: float, *, stream: TextIO | None = None, interval_s: float = 10.0, what: str = ""
) -> Iterator[Report]:
    """Show the progress of work of size `total` on `stream` (standard error) if that is a terminal, else in the log.

    Both show the text that was reported last and about how long the rest will take; `what` names what that time is of.
    The log gets a line at most every `interval_s` seconds, and one when all is done. Nothing is shown before the first
    report.
    """
    stream = stream or sys.stderr
    if not stream.isatty():
        yield _LogLines(total, interval_s, what).report
        return
    bar = _Bar(total, stream)
    try:
        yield bar.report
    finally:
        bar.stop()


def print_above(text: str) -> None:
    """Print a line while progress is shown: above the bar on a terminal. (`typer.echo` would write into the bar, for it
    goes around a standard output that says no encoding, as that is which makes room above the bar.)"""
    print(text, flush=True)


@contextmanager
def progress_rows(*, stream: TextIO | None = None) -> Iterator[Rows]:
    """Show several works that run side by side, a row each, on `stream` (standard error) if that is a terminal; else
    show nothing, and leave it to each of them to log where it stands."""
    stream = stream or sys.stderr
    rows = Rows(_start_bars(stream) if stream.isatty() else None)
    try:
        yield rows
    finally:
        rows.stop()


class Rows:
    """Rows on a terminal that come and go."""

    def __init__(self, bars: Progress | None) -> None:
        """`bars`: started; None where nothing is shown."""
        self._bars = bars
        self._rows: dict[Hashable, TaskID] = {}

    def show(self, key: Hashable, done: float, total: float, text: str) -> None:
        """Show that so much of a work is done; a new key adds a row."""
        if self._bars is None:
            return
        if key not in self._rows:
            self._rows[key] = self._bars.add_task("", total=total)
        self._bars.update(self._rows[key], completed=done, total=total, description=text)

    def remove(self, key: Hashable) -> None:
        """Remove a work's row, if it has one."""
        if self._bars is not None and key in self._rows:
            self._bars.remove_task(self._rows.pop(key))

    def stop(self) -> None:
        """Leave the terminal as it is."""
        if self._bars is not None:
            self._bars.stop()


def _start_bars(stream: TextIO) -> Progress:
    """Bars on a terminal. What is printed and logged to it meanwhile appears above them; what goes into a file or a
    pipe is left alone."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(bar_width=24), TextColumn("{task.description}", markup=False), TimeRemainingColumn())
    bars = Progress(*columns, console=Console(file=stream), redirect_stdout=sys.stdout.isatty())
    bars.start()
    return bars


class _Bar:
    """A bar on a terminal."""

    def __init__(self, total: float, stream: TextIO) -> None:
        self._total, self._stream = total, stream
        self._bars: Progress | None = None
        self._shown = self._done = 0.0

    def report(self, amount: float, text: Text) -> None:
        now = time.monotonic()
        if self._bars is None:
            self._bars = _start_bars(self._stream)
            self._row = self._bars.add_task("", total=self._total)
        self._done += amount
        self._bars.advance(self._row, amount)
        if now - self._shown >= REFRESH_S or _reached(self._done, self._total):
            self._shown = now
            self._bars.update(self._row, description=text if isinstance(text, str) else text())

    def stop(self) -> None:
        if self._bars is not None:
            self._bars.stop()


class _LogLines:
    """The lines that a log gets."""

    def __init__(self, total: float, interval_s: float, what: str) -> None:
        self._total, self._interval_s, self._what = total, interval_s, what
        self._started = self._last = time.monotonic()
        self._done = 0.0

    def report(self, amount: float, text: Text) -> None:
        now = time.monotonic()
        before, self._done = self._done, self._done + amount
        ends = _reached(self._done, self._total) and not _reached(before, self._total)
        if now - self._last < self._interval_s and not ends:
            return
        self._last = now
        shown = text if isinstance(text, str) else text()
        if self._done > 0 and not _reached(self._done, self._total):
            left_s = (now - self._started) * (self._total - self._done) / self._done
            shown = f"{shown}, {f'{self._what} ' if self._what else ''}{span(left_s)} left"
        log.info("%s", shown)


def span(seconds: float) -> str:
    """A length of time in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _reached(done: float, total: float) -> bool:
    """Is all done, but for errors of rounding?"""
    return done >= total * (1 - 1e-9)
