"""The packets of a video stream: their time stamps and which of them are key frames. Nothing is decoded."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from preprocessing.ffmpeg.arguments import packets_argv
from preprocessing.ffmpeg.log import FFmpegLog
from preprocessing.ffmpeg.process import FFmpegReader
from preprocessing.media.extraction import Limits

_KEY, _NO_REFERENCE = 0x1, 0x10


@dataclass(slots=True)
class PacketTable:
    """The packets of a video stream in the order in which they are decoded; nearly always one a frame."""

    log: FFmpegLog
    stream: int | None = None
    """Number of the stream; None for the first one."""
    ticks_per_s: int | None = None
    """Of the time stamps; None where that is no whole number."""
    stamps: list[int | None] = field(default_factory=list)
    """When each is shown, in ticks from the start of the file's clock."""
    flags: list[int] = field(default_factory=list)
    returncode: int | None = None
    """Exit status of ffmpeg, None where it was ended."""

    def is_key(self, number: int) -> bool:
        """Is that packet marked as one at which decoding can start?"""
        return bool(self.flags[number] & _KEY)

    def count(self, start_s: float, end_s: float | None) -> int:
        """About how many frames are shown in a half-open range of time."""
        ticks, end = self.ticks_per_s or 1, math.inf if end_s is None else end_s
        return sum(stamp is not None and start_s <= stamp / ticks < end for stamp in self.stamps)

    @property
    def is_plain(self) -> bool:
        """Is every packet to be decoded and shown? Some are there only for others, or hidden by an edit list."""
        return not any(flags & ~(_KEY | _NO_REFERENCE) for flags in self.flags)


def read_packets(source: str, *, limits: Limits, stop: threading.Event | None = None) -> PacketTable:
    """The packets of the stream that is the video; none of a file that cannot be read or goes beyond the limits."""
    table = _read(source, None, limits, stop)
    videos = [stream for stream in table.log.streams if not stream.is_cover]
    if (video := table.log.video) and video.number != videos[0].number:
        table = _read(source, video.number, limits, stop)
    return table


def _read(source: str, stream: int | None, limits: Limits, stop: threading.Event | None) -> PacketTable:
    process = FFmpegReader(packets_argv(source, stream), limits.timeout_s, stop)
    table = PacketTable(process.log, stream)
    with process:
        for line in _lines(process.chunks()):
            if line.startswith("#tb 0: 1/"):
                table.ticks_per_s = int(line.rpartition("/")[2])
            elif not line.startswith("#"):
                _, _, shown, _, _, _, *more = (part.strip() for part in line.split(","))
                table.stamps.append(None if shown == "NOPTS" else int(shown))
                flags = [part for part in more if part.startswith("F=")]
                table.flags.append(int(flags[0][2:], 16) if flags else _KEY)
                if len(table.stamps) > limits.num_frames:
                    return PacketTable(process.log, stream)
    table.returncode = process.returncode
    return table


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode() for line in lines)
