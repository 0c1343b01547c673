"""A few frames of a long file by their numbers: only the stretches from a key frame to a wanted frame are decoded.

Which time stamp the frame with some number has, the list of packets says, if each packet is one frame. That is checked
wherever something is decoded: the stamps that come out have to be those of the list, none left out.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

from preprocessing.ffmpeg.arguments import seek_argv
from preprocessing.ffmpeg.filters import Picture, picture_of
from preprocessing.ffmpeg.process import FFmpegReader
from preprocessing.media.extraction import Extraction, Limits
from preprocessing.media.jpeg import JpegSplitter, jpeg_size
from preprocessing.media.seeking.packets import PacketTable
from preprocessing.media.seeking.seek import is_exact, is_sought_in, seek_points
from preprocessing.media.verdict import Ending, judge
from preprocessing.schema import ExtractionSpec

_ONE_FRAME_A_PACKET = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg", "prores", "dnxhd", "ffv1")
"""Codecs whose packets are one frame each, in formats that can be sought in. Some of VP8, for instance, are none."""
_START_COSTS = 40
"""Starting a decoder costs about as much as decoding so many frames."""
_WORTH_IT = 0.6
"""Share of a decoding of the whole file that a few stretches may cost at most."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Frames to be decoded: from a key frame to the last one that is wanted of those behind it."""

    key: int
    """Number of the key frame."""
    wanted: tuple[int, ...]
    """Numbers of the frames that are wanted, ascending."""


@dataclass(frozen=True, slots=True)
class FrameTable:
    """The frames of a file in the order in which they are shown."""

    stamps: tuple[int, ...]
    """In ticks, counted from the start of the file's clock."""
    keys: tuple[int, ...]
    """Numbers of the frames at which decoding can start, ascending."""
    ticks_per_s: int


def frame_table(packets: PacketTable, spec: ExtractionSpec) -> FrameTable | None:
    """The frames of a file, by its packets; None if these do not prove which frame has which number."""
    log, video, ticks_per_s = packets.log, packets.log.video, packets.ticks_per_s
    stamps = [stamp for stamp in packets.stamps if stamp is not None]
    if video is None or ticks_per_s is None or len(stamps) < len(packets.stamps) or not stamps:
        return None
    is_known = video.codec in _ONE_FRAME_A_PACKET and is_sought_in(log.container) and is_exact(ticks_per_s)
    # Fields of interlaced video may be packets of their own, and deinterlacing needs the frames around.
    is_whole = not video.interlaced and not spec.deinterlace and packets.is_plain
    order = sorted(stamps)
    is_ordered = packets.is_key(0) and stamps[0] == order[0] and all(one < other for one, other in pairwise(order))
    if not (is_known and is_whole and is_ordered):
        return None
    number = {stamp: at for at, stamp in enumerate(order)}
    keys = sorted(number[stamp] for at, stamp in enumerate(stamps) if packets.is_key(at))
    return FrameTable(tuple(order), tuple(keys), ticks_per_s)


def plan_stretches(table: FrameTable, wanted: Sequence[int]) -> list[Stretch]:
    """The stretches that hold the wanted frames; none if decoding the whole file costs hardly more."""
    by_key: dict[int, list[int]] = {}
    for number in wanted:
        by_key.setdefault(table.keys[bisect.bisect(table.keys, number) - 1], []).append(number)
    cost = sum(numbers[-1] - key + _START_COSTS for key, numbers in by_key.items())
    if cost > _WORTH_IT * len(table.stamps):
        return []
    return [Stretch(key, tuple(numbers)) for key, numbers in by_key.items()]


def seek_samples(
    source: str,
    spec: ExtractionSpec,
    packets: PacketTable,
    wanted: Sequence[int],
    *,
    threads: int,
    limits: Limits,
    stop: threading.Event | None,
) -> tuple[dict[int, bytes], Extraction] | None:
    """The wanted frames by their numbers, and the verdict on the file as far as it was read; `threads` stretches are
    decoded at once. None where that costs more than decoding everything, or a proof is missing."""
    table, video = frame_table(packets, spec), packets.log.video
    stretches = plan_stretches(table, wanted) if table else []
    if table is None or video is None or not stretches:
        return None
    count = min(len(table.stamps), spec.max_frames or len(table.stamps))
    ending = Ending(packets.log, limits, count, count == spec.max_frames, 0.0, None, "itself", packets.returncode, "")
    status, error = judge(ending)
    if status != "ok":
        return None
    reader = _StretchReader(source, spec, picture_of(video, spec, None), table, limits, stop)
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(reader.read, stretches))
    jpegs: dict[int, bytes] = {}
    for part in parts:
        if part is None:
            return None
        jpegs |= part
    height, width = jpeg_size(jpegs[wanted[0]])
    duration_s = packets.log.duration_s
    return jpegs, Extraction(status, error, count, video.fps, height, width, duration_s, packets.returncode, video)


class _StretchReader:
    """Decodes stretches of one file, in several threads at once."""

    def __init__(
        self,
        source: str,
        spec: ExtractionSpec,
        picture: Picture,
        table: FrameTable,
        limits: Limits,
        stop: threading.Event | None,
    ) -> None:
        self._source, self._spec, self._picture, self._table = source, spec, picture, table
        self._stop = stop
        self._deadline = time.monotonic() + limits.timeout_s
        self._is_hopeless = False

    def read(self, stretch: Stretch) -> dict[int, bytes] | None:
        """The wanted frames of a stretch, or None if no seek proves that they are these."""
        key_s = self._table.stamps[stretch.key] / self._table.ticks_per_s
        for seek_s in seek_points(key_s):
            if self._is_hopeless:
                return None
            if (jpegs := self._try(stretch, seek_s)) is not None:
                return dict(zip(stretch.wanted, jpegs, strict=True))
        self._is_hopeless = True
        return None

    def _try(self, stretch: Stretch, seek_s: float) -> list[bytes] | None:
        shift = round(seek_s * self._table.ticks_per_s)
        stamps = [self._table.stamps[number] - shift for number in stretch.wanted]
        argv = seek_argv(self._source, self._spec, self._picture, seek_s, stamps)
        process, splitter = FFmpegReader(argv, self._deadline - time.monotonic(), self._stop), JpegSplitter()
        jpegs = list[bytes]()
        try:
            with process:
                for chunk in process.chunks():
                    jpegs += splitter.feed(chunk)
        except ValueError:
            return None
        log = process.log
        if process.returncode != 0 or log.num_errors or log.reconfigured or len(jpegs) != len(stamps) or not log.shown:
            return None
        first, is_key = log.shown[0]
        if first is None or not is_key:
            return None
        start = bisect.bisect_left(self._table.stamps, first + shift)
        expected = self._table.stamps[start : start + len(log.shown)]
        found = [None if stamp is None else stamp + shift for stamp, _ in log.shown]
        is_proven = start in self._table.keys and found == list(expected)
        return jpegs if is_proven and start <= stretch.wanted[0] else None
