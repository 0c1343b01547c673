"""A terminal, and what programs have shown on it."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class Terminal:
    """A pseudo-terminal that is written to, and all that was."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.raw = bytearray()

    @property
    def text(self) -> str:
        """What was shown, without colours and movements of the cursor."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw.decode())


@contextmanager
def terminal() -> Iterator[Terminal]:
    """A terminal of 200 columns; complete when the context has ended."""
    reader, writer = os.openpty()
    os.environ["COLUMNS"], before = "200", os.environ.get("COLUMNS")
    opened = Terminal(os.fdopen(writer, "w"))

    def read() -> None:
        try:
            while chunk := os.read(reader, 4096):
                opened.raw.extend(chunk)
        except OSError:  # the other end is closed
            pass

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield opened
    finally:
        opened.stream.close()
        thread.join()
        os.close(reader)
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
