"""The log of ffmpeg: what it writes to standard error goes in; streams, progress and errors come out.

Memory is bounded, however long the log is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction

from preprocessing.ffmpeg.video_stream import WIDE_PRIMARIES, VideoStream, main_stream, parse_stream

_LEVEL = re.compile(r"^((?:\[[^\]]* @ 0x[0-9a-f]+\] )*)\[(panic|fatal|error|warning|info|verbose)\] (.*)$")
_ADDRESS = re.compile(r" @ 0x[0-9a-f]+")
_INPUT = re.compile(r"^Input #0, (\S+), from ")
_DURATION = re.compile(r"^  Duration: (?:(\d+):(\d+):(\d+\.\d+)|N/A)(?:, start: (-?\d+\.\d+))?")
_CORRUPT = ("corrupt decoded frame", "corrupt input packet", "Packet corrupt")
_SHOWN = re.compile(r"^n: *\d+ pts: *(-?\d+|NOPTS) .* iskey:(\d) type:(.)")
_INTO_FILTERS = " input from stream "
_SHAPE = re.compile(r"^w:(\d+) h:(\d+) .*\bsar:(\d+)/(\d+)")
_MATRIX = re.compile(r"\bcsp:(\S+)")
_CLOCK = re.compile(r"^config in time_base: 1/(\d+),")
_MAX_STREAMS = 100
_REPEATED = re.compile(r"^ {4}Last message repeated (\d+) times$")
_SHOWN_ERRORS, _MAX_PARTS = 3, 32


@dataclass(slots=True)
class FFmpegLog:
    """What a log has reported so far. Fed with the output of `ffmpeg -loglevel level+verbose -progress pipe:2`."""

    container: str = ""
    """Names of the demuxer; empty until the file is open."""
    duration_s: float | None = None
    start_s: float = 0.0
    """Where the file's clock starts."""
    streams: list[VideoStream] = field(default_factory=list)
    out_time_s: float | None = None
    num_frames: int = 0
    """Of the first output."""
    reconfigured: bool = False
    """Did frames change their size or format? Then the filters, and what they count, began anew."""
    reshaped: bool = False
    """Did they change their ratio of width to height?"""
    recoloured: str = ""
    """How they changed between wide colours and ordinary ones, in words: what the header says holds for the first."""
    shown: list[tuple[int | None, bool]] = field(default_factory=list)
    """Of each frame that `showinfo` has seen: its time stamp, and whether decoding can start there."""
    ticks_per_s: int | None = None
    """Of these time stamps; None where that is no whole number."""
    is_rising: bool = True
    """Is each of them later than the one before?"""
    num_errors: int = 0
    _errors: dict[str, list[str]] = field(default_factory=dict)
    """By the part of ffmpeg that they come from: its first ones, each once."""
    _has_threads: bool = False
    _was_error: bool = False
    _is_empty: bool = False
    _in_header: bool = False
    _entered: tuple[str, Fraction] | None = None
    _rest: bytes = b""

    @property
    def opened(self) -> bool:
        """Could ffmpeg open the file?"""
        return bool(self.container)

    @property
    def video(self) -> VideoStream | None:
        """The video stream of the file."""
        return main_stream(self.streams)

    @property
    def errors(self) -> list[str]:
        """The first messages that something is wrong. Parts of ffmpeg run in threads of their own, and whose message
        comes first is chance: they stand here part by part."""
        parts = sorted((_ADDRESS.sub("", part), messages) for part, messages in self._errors.items())
        return list(dict.fromkeys(message for _, messages in parts for message in messages))[:_SHOWN_ERRORS]

    def feed(self, chunk: bytes) -> None:
        """Read the next bytes of the log; they may end inside a line."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        self._rest = self._rest[-4096:]
        for line in lines:
            self._read(line.decode("utf-8", "replace").rstrip())

    def _read(self, line: str) -> None:
        if line.startswith("out_time_us="):
            value = line.split("=")[1]
            self.out_time_s = int(value) / 1e6 if value.lstrip("-").isdigit() else None
            return
        if line.startswith("frame=") and line[6:].isdigit():
            self.num_frames = int(line[6:])
            return
        match = _LEVEL.match(line)
        if match is None:
            if self._was_error and (repeated := _REPEATED.match(line)):
                self.num_errors += int(repeated[1])
            return
        source, level, text = match.groups()
        self._was_error = False
        if level == "verbose":
            self._has_threads |= text == "Starting thread..."
            if _INTO_FILTERS in source and (shape := _SHAPE.match(text)):
                self._enter_filters(text, *map(int, shape.groups()))
        elif level in ("panic", "fatal", "error") or any(word in text for word in _CORRUPT):
            self._add_error(source if self._has_threads else "", _ADDRESS.sub("", text))
        elif "showinfo" in source:
            if shown := _SHOWN.match(text):
                self._show(*shown.groups())
            elif clock := _CLOCK.search(text):
                self.ticks_per_s = int(clock[1])
        elif text.startswith("No filtered frames for output stream"):
            self._is_empty = True
        elif text.startswith("Reconfiguring filter graph"):
            self.reconfigured = True
        elif opened := _INPUT.match(text):
            self.container, self._in_header = opened[1], True
        elif text.startswith(("Stream mapping:", "Output #0")):
            self._in_header = False
        elif self._in_header:
            self._read_header(text)

    def _add_error(self, part: str, text: str) -> None:
        if self.num_errors and text.startswith("Error opening input"):
            return  # says no more than the line before it, and where the data root is
        if self._is_empty:
            return  # an encoder that got no frame complains of all it can think of
        self.num_errors += 1
        self._was_error = True
        text = "".join(letter if letter.isprintable() else "?" for letter in text)  # it may quote the file
        if part in self._errors or len(self._errors) < _MAX_PARTS:
            messages = self._errors.setdefault(part, [])
            if text not in messages and len(messages) < _SHOWN_ERRORS:
                messages.append(text)

    def _enter_filters(self, text: str, width: int, height: int, aspect_w: int, aspect_h: int) -> None:
        """Frames of some size and format come to the filters: the first ones, or others than before."""
        shape = Fraction(width * (aspect_w or 1), height * (aspect_h or 1))
        first, first_shape = self._entered = self._entered or (text, shape)
        self.reconfigured |= text != first
        before, now = (match[1] if (match := _MATRIX.search(each)) else "" for each in (first, text))
        if before.startswith(WIDE_PRIMARIES) != now.startswith(WIDE_PRIMARIES):
            self.recoloured = f"from {before} to {now}"
        self.reshaped |= shape != first_shape

    def _show(self, stamp: str, key: str, kind: str) -> None:
        shown = None if stamp == "NOPTS" else int(stamp)
        before = self.shown[-1][0] if self.shown else None
        self.is_rising &= shown is not None and (before is None or before < shown)
        self.shown.append((shown, key == "1" and kind == "I"))

    def _read_header(self, text: str) -> None:
        if duration := _DURATION.match(text):
            hours, minutes, seconds, start = duration.groups()
            if hours is not None:
                self.duration_s = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
            self.start_s = float(start or 0.0)
        elif stream := parse_stream(text):
            if len(self.streams) < _MAX_STREAMS:
                self.streams.append(stream)
        elif self.streams and not text.startswith("  Stream #"):
            self.streams[-1].add_side_data(text)
