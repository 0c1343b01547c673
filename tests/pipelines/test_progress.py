"""Progress is a bar on a terminal and plain lines in a log."""

from __future__ import annotations

import io
import logging
import re
import sys
from functools import reduce
from operator import add

import pytest

from helpers.terminal import terminal
from pipelines.logs import start_logging
from pipelines.progress import progress, progress_rows, span


def test_a_log_gets_few_lines_and_the_last_one(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), progress(3, stream=io.StringIO()) as report:
        for number in range(1, 4):
            report(1, f"{number}/3 videos")
        report(0, "tidying up")
    assert caplog.messages == ["3/3 videos"]


def test_a_log_says_how_long_the_rest_will_take(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), progress(1000, stream=io.StringIO(), interval_s=0, what="this") as report:
        report(0, "nothing yet")
        report(100, "a tenth")
        report(900, "100 % of all")
    assert caplog.messages[0] == "nothing yet" and caplog.messages[2] == "100 % of all"
    assert re.fullmatch(r"a tenth, this \d+ s left", caplog.messages[1])


def test_lengths_of_time() -> None:
    assert [span(seconds) for seconds in (0.4, 89, 90, 3600, 7200)] == ["0 s", "89 s", "1.5 min", "60.0 min", "2.0 h"]


def test_errors_of_rounding_do_not_hide_the_end(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), progress(1, stream=io.StringIO()) as report:
        for number in range(10):
            report(0.1, str(number))
    added = reduce(add, [0.1] * 10)  # not `sum`, which corrects its rounding from Python 3.12 on
    assert added < 1 and caplog.messages == ["9"]


def test_words_that_are_not_shown_are_not_made() -> None:
    """They may have to wait for the device."""
    made = []
    with terminal() as shown, progress(1000, stream=shown.stream) as report:
        for number in range(1000):
            report(1, lambda number=number: made.append(number) or f"step {number}")  # type: ignore[misc, func-returns-value]
    assert made[0] == 0 and made[-1] == 999 and len(made) < 100
    assert "step 999" in shown.text


def test_a_terminal_gets_a_bar(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), terminal() as shown, progress(2, stream=shown.stream) as report:
        report(1, "1/2 videos")
        report(1, "2/2 [videos]")
    assert "2/2 [videos]" in shown.text and b"\x1b[" in shown.raw
    assert not caplog.messages


def test_work_that_reports_nothing_shows_nothing() -> None:
    with terminal() as shown, progress(2, stream=shown.stream):
        pass
    assert not shown.raw


def test_what_is_logged_meanwhile_stands_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers, level = logging.root.handlers[:], logging.root.level
    try:
        with terminal() as shown:
            monkeypatch.setattr(sys, "stderr", shown.stream)
            start_logging(anew=True)
            with progress(2) as report:
                report(1, "half")
                logging.getLogger("x").info("a line of the log")
                report(1, "whole")
    finally:
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
    lines = [line.strip() for line in shown.text.replace("\r", "\n").splitlines()]
    assert "a line of the log" in lines  # alone, not behind a bar


def test_rows_come_and_go() -> None:
    with terminal() as shown, progress_rows(stream=shown.stream) as rows:
        rows.show("a", 1, 4, "trial a: epoch 1 of 4")
        rows.show("b", 0, 4, "trial b: epoch 0 of 4")
        rows.remove("b")
        rows.remove("never shown")
        rows.show("a", 4, 4, "trial a: epoch 4 of 4")
    assert "trial a: epoch 1 of 4" in shown.text or "trial b: epoch 0 of 4" in shown.text
    assert shown.text.rstrip().count("trial a: epoch 4 of 4") and "trial b" not in shown.text[-200:]


def test_rows_are_not_shown_in_a_log() -> None:
    stream = io.StringIO()
    with progress_rows(stream=stream) as rows:
        rows.show("a", 1, 4, "a")
        rows.remove("a")
    assert not stream.getvalue()
