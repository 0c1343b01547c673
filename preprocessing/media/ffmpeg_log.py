"""The log of ffmpeg: what it writes to standard error goes in; duration, rate, progress and errors come out.

Memory is bounded, however long the log is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_LEVEL = re.compile(r"^(?:\[[^\]]* @ 0x[0-9a-f]+\] )*\[(panic|fatal|error|warning|info)\] (.*)$")
_ADDRESS = re.compile(r" @ 0x[0-9a-f]+")
_DURATION = re.compile(r"^  Duration: (\d+):(\d+):(\d+\.\d+)")
_STREAM = re.compile(r"^  Stream #0:\d+.*: Video: .*?, (\d+)x(\d+)\b")
_FPS = re.compile(r" (\d+(?:\.\d+)?)(k?) (?:fps|tbr)\b")
_CORRUPT = ("corrupt decoded frame", "corrupt input packet", "Packet corrupt")


@dataclass(slots=True)
class FFmpegLog:
    """What a log has reported so far. Fed with the output of `ffmpeg -loglevel level+info -progress pipe:2`."""

    duration_s: float | None = None
    fps: float | None = None
    out_time_s: float | None = None
    opened: bool = False
    has_video: bool = False
    num_frames: int = 0
    """Of the first output."""
    reconfigured: bool = False
    """Did frames change their size or format? Then the filters, and what they count, began anew."""
    num_errors: int = 0
    errors: list[str] = field(default_factory=list)
    _rest: bytes = b""

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
            return
        level, text = match.groups()
        if level in ("panic", "fatal", "error") or any(word in text for word in _CORRUPT):
            if self.errors and text.startswith("Error opening input"):
                return  # says no more than the line before it, and where the data root is
            self.num_errors += 1
            if len(self.errors) < 3:
                self.errors.append(_ADDRESS.sub("", text))
        elif text.startswith("Input #0"):
            self.opened = True
        elif text.startswith("Reconfiguring filter graph"):
            self.reconfigured = True
        elif duration := _DURATION.match(text):
            hours, minutes, seconds = duration.groups()
            self.duration_s = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        elif not self.has_video and _STREAM.match(text) and "(attached pic)" not in text:
            self.has_video = True
            rate = _FPS.search(text)
            self.fps = float(rate[1]) * (1000 if rate[2] else 1) if rate else None
