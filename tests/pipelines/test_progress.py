"""Progress is a bar on a terminal and plain lines in a log."""

from __future__ import annotations

import io
import logging
import os
import re
import threading

import pytest

from pipelines.progress import progress


def test_a_log_gets_few_lines_and_the_last_one(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), progress(3, stream=io.StringIO()) as report:
        for number in range(1, 4):
            report(1, f"{number}/3 videos")
    assert caplog.messages == ["3/3 videos"]


def test_a_log_says_how_long_the_rest_will_take(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), progress(1000, stream=io.StringIO(), interval_s=0) as report:
        report(0, "nothing yet")
        report(100, "a tenth")
        report(900, "all")
    assert caplog.messages[0] == "nothing yet" and caplog.messages[2] == "all"
    assert re.fullmatch(r"a tenth, \d+\.\d min left", caplog.messages[1])


def test_a_terminal_gets_a_bar(caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = os.openpty()
    shown = bytearray()

    def read() -> None:
        try:
            while chunk := os.read(reader, 4096):
                shown.extend(chunk)
        except OSError:  # the other end is closed
            pass

    thread = threading.Thread(target=read)
    thread.start()
    with caplog.at_level(logging.INFO):
        with open(writer, "w") as stream, progress(2, stream=stream) as report:
            report(1, "1/2 videos")
            report(1, "2/2 videos")
        thread.join()
    os.close(reader)
    assert "2/2 videos" in shown.decode() and "\x1b[" in shown.decode()
    assert not caplog.messages
