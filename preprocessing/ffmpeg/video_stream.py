"""What the header of a file says of a video stream: its shape, its colours, its clock."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_LINE = re.compile(r"^  Stream #0:(\d+)\S*: Video: (\w+)(.*)$")
_PIXELS = re.compile(r", \w+(?:\(((?:[^()]|\([^()]*\))*)\))?, (\d+)x(\d+)\b")
_ASPECT = re.compile(r"\bSAR (\d+):(\d+)")
_RATE = re.compile(r" (\d+(?:\.\d+)?)(k?) (fps|tbr|tbn)\b")
_ROTATION = re.compile(r"rotation of (-?\d+(?:\.\d+)?) degrees", re.IGNORECASE)
_DOLBY = re.compile(r"DOVI configuration record:.*\bprofile: (\d+)")
_FIELDS = {"progressive": False, "top first": True, "bottom first": True}
_FIELDS |= {"top coded first (swapped)": True, "bottom coded first (swapped)": True}
_LEAST_RATE, _MOST_RATE = 1.0, 1000.0
HDR_TRANSFERS = ("smpte2084", "arib-std-b67")
"""Brightness curves of HDR: PQ and HLG."""
WIDE_PRIMARIES = "bt2020"
SQUARE = (0.97, 1.03)
"""Width to height of pixels that count as square: some come from sizes that were rounded, as 854x480 for 16:9."""


@dataclass(slots=True)
class VideoStream:
    """A video stream as the header describes it; None where the header does not say."""

    number: int
    """Among all streams of the file."""
    codec: str
    height: int
    width: int
    is_cover: bool = False
    """A picture that is attached to the file, not a video."""
    sample_aspect: str | None = None
    """Width to height of a pixel, as "4:3"."""
    rotation: int | None = None
    """Degrees, counter-clockwise, by which frames are turned to stand upright."""
    matrix: str | None = None
    primaries: str | None = None
    transfer: str | None = None
    color_range: str | None = None
    """`tv` (16 to 235) or `pc` (0 to 255)."""
    interlaced: bool | None = None
    dolby_profile: int | None = None
    fps: float | None = None
    ticks_per_s: int | None = None
    """Of its clock, where that is a whole number."""

    @property
    def upright_size(self) -> tuple[int, int] | None:
        """(height, width) of its frames as they are seen upright; None where the header does not say."""
        is_on_its_side = (self.rotation or 0) % 180 == 90
        size = (self.width, self.height) if is_on_its_side else (self.height, self.width)
        return size if min(size) else None

    @property
    def is_hdr(self) -> bool:
        """Are its brightnesses those of an HDR screen?"""
        return self.transfer in HDR_TRANSFERS

    @property
    def has_wide_colours(self) -> bool:
        """Would its colours look wrong if they were taken for those of BT.709?"""
        if self.is_hdr or self.dolby_profile == 5:
            return True
        return WIDE_PRIMARIES in (self.primaries, (self.matrix or "")[: len(WIDE_PRIMARIES)])

    def add_side_data(self, line: str) -> None:
        """Read a line that follows the stream's own: its rotation, for instance."""
        if match := _ROTATION.search(line):
            self.rotation = round(float(match[1])) or None
        elif match := _DOLBY.search(line):
            self.dolby_profile = int(match[1])


def parse_stream(line: str) -> VideoStream | None:
    """The video stream that a line of ffmpeg's header describes; None for any other line."""
    match = _LINE.match(line)
    if match is None:
        return None
    number, codec, rest = int(match[1]), match[2], match[3]
    is_cover = "(attached pic)" in rest
    pixels = _PIXELS.search(rest)
    if pixels is None:
        return VideoStream(number, codec, 0, 0, is_cover)
    stream = VideoStream(number, codec, int(pixels[3]), int(pixels[2]), is_cover)
    if aspects := _ASPECT.findall(rest):
        stream.sample_aspect = ":".join(aspects[-1])  # the container's, which counts more, stands behind the codec's
    for word in (pixels[1] or "").split(", "):
        if word in ("tv", "pc"):
            stream.color_range = word
        elif word in _FIELDS:
            stream.interlaced = _FIELDS[word]
        elif "/" in word or word.startswith(("bt", "smpte")):
            parts = [None if part in ("unknown", "reserved") else part for part in word.split("/")]
            stream.matrix, stream.primaries, stream.transfer = parts if len(parts) == 3 else parts[:1] * 3
    rates = {name: float(value) * (1000 if kilo else 1) for value, kilo, name in _RATE.findall(rest)}
    stream.fps = _plausible_rate(rates.get("fps"), rates.get("tbr"))
    stream.ticks_per_s = int(rates["tbn"]) if rates.get("tbn", 0.5).is_integer() else None
    return stream


def is_square(sample_aspect: str | None) -> bool:
    """Are pixels of that width to height square, as far as is known?"""
    width, _, height = (sample_aspect or "1:1").partition(":")
    return "0" in (width, height) or SQUARE[0] <= int(width) / int(height) <= SQUARE[1]


def main_stream(streams: Sequence[VideoStream]) -> VideoStream | None:
    """The stream that is the video: of those that are no cover the one with the most pixels, of equal ones the
    first."""
    videos = [stream for stream in streams if not stream.is_cover]
    return max(videos, key=lambda stream: stream.height * stream.width, default=None)


def _plausible_rate(average: float | None, clock: float | None) -> float | None:
    """Frames per second: the average rate, or the clock's where a jump or a stop of the clock spoils the average."""
    for rate in (average, clock):
        if rate is not None and _LEAST_RATE <= rate <= _MOST_RATE:
            return rate
    return average if average and average < _LEAST_RATE else None
