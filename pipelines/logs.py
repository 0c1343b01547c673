"""What the program logs: plain lines on standard error, without passwords."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

from preprocessing.addresses import without_secrets


class _Plain(logging.Formatter):
    """The message alone."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


class _StandardError(logging.StreamHandler[TextIO]):
    """A handler that writes to what standard error is at that moment: a progress bar lets lines appear above itself."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # an attribute there: it would keep the stream of the start
        return sys.stderr


def start_logging(*, anew: bool = False) -> None:
    """Log from level INFO on. `anew` replaces what a library has set up before."""
    handler = _StandardError()
    handler.setFormatter(_Plain("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=anew)
    for name in ("httpx", "httpx2"):  # a line for every request of a library
        logging.getLogger(name).setLevel(logging.WARNING)


def in_a_line(error: BaseException) -> str:
    """An error's kind and message in one line, without passwords."""
    return without_secrets(" ".join(f"{type(error).__name__}: {error}".split()))
