"""What ffmpeg's log says of damage does not depend on which of its threads spoke first."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from preprocessing.ffmpeg.log import FFmpegLog

BEFORE = "[vf#0:0 @ 0x55f5] [verbose] Starting thread..."
PARSER = [
    "[h264 @ 0x6c00] [error] Invalid NAL unit size (0 > 243).",
    "[h264 @ 0x6c00] [error] missing picture in access unit with size 247",
    "[h264 @ 0x6c00] [error] Invalid NAL unit size (0 > 235).",
]
DECODER = [
    "[h264 @ 0xcac0] [error] error while decoding MB 2 2, bytestream -27",
    "[vist#0:0/h264 @ 0x63c0] [dec:h264 @ 0xc080] [error] Error submitting packet to decoder: Invalid data",
    "[vist#0:0/h264 @ 0x63c0] [dec:h264 @ 0xc080] [warning] corrupt decoded frame",
]


def read(lines: Sequence[str]) -> FFmpegLog:
    log = FFmpegLog()
    log.feed("".join(f"{line}\n" for line in lines).encode())
    return log


def merged(parser_first: Sequence[bool]) -> list[str]:
    parser, decoder = iter(PARSER), iter(DECODER)
    return [next(parser if is_parser else decoder) for is_parser in parser_first]


def test_the_order_in_which_threads_speak_changes_nothing() -> None:
    orders = [order for order in itertools.product([True, False], repeat=6) if sum(order) == 3]
    found = {(log.num_errors, *log.errors) for log in (read([BEFORE, *merged(order)]) for order in orders)}
    assert len(orders) == 20 and len(found) == 1
    (count, first, second, _), *_ = found
    assert (count, first) == (6, "Invalid NAL unit size (0 > 243).")
    assert second == "missing picture in access unit with size 247"


@pytest.mark.parametrize(
    "lines",
    [
        [PARSER[0], PARSER[0], DECODER[0], PARSER[0]],
        [PARSER[0], "    Last message repeated 2 times", DECODER[0]],
        [PARSER[0], "    Last message repeated 1 times", DECODER[0], "[in#0 @ 0x1] [verbose] EOF", PARSER[0]],
    ],
)
def test_messages_that_ffmpeg_sums_up_count_as_often_as_they_were_said(lines: list[str]) -> None:
    log = read([BEFORE, *lines])
    assert log.num_errors == 4
    assert log.errors == ["Invalid NAL unit size (0 > 243).", "error while decoding MB 2 2, bytestream -27"]


def test_repeated_messages_that_are_no_errors_do_not_count() -> None:
    log = read([DECODER[0], "[h264 @ 0xcac0] [verbose] Reinit context", "    Last message repeated 9 times"])
    assert log.num_errors == 1


def test_before_there_are_threads_messages_stand_in_their_order() -> None:
    lines = ["[mov @ 0x1] [error] moov atom not found", "[in#0 @ 0x2] [error] Error opening input: Invalid data"]
    lines.insert(1, "[aaa @ 0x3] [error] something else")
    assert read(lines).errors == ["moov atom not found", "something else"]
