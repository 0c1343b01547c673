"""Changes of the shape of pixels inside an MPEG-2 stream, as broadcasts switch from 4:3 to 16:9: ffmpeg keeps the first
one for all frames and says nothing. The headers in front of groups of pictures tell them; nothing is decoded."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from preprocessing.ffmpeg.video_stream import VideoStream

CODEC = "mpeg2video"
_HEADER = re.compile(rb"\x00\x00\x01\xb3(.{4})", re.DOTALL)
_SHAPES = {1: "square pixels", 2: "4:3", 3: "16:9", 4: "2.21:1"}
_READ, _LONGEST = 8 << 20, 8


def pixel_changes(path: Path | str, video: VideoStream) -> str:
    """How the shape changes first, such as "from 4:3 to 16:9"; empty if it does not, or cannot be told."""
    wanted = (video.width & 0xFFF, video.height & 0xFFF)
    found: list[int] = []
    try:
        with open(path, "rb") as file:
            rest = b""
            while chunk := file.read(_READ):
                for header in _HEADER.findall(data := rest + chunk):
                    width, height = int.from_bytes(header[:2], "big") >> 4, int.from_bytes(header[1:3], "big") & 0xFFF
                    shape = header[3] >> 4
                    # Bytes of another stream may look like a header.
                    if (width, height) == wanted and shape in _SHAPES and shape not in found[-1:]:
                        found.append(shape)
                rest = data[1 - _LONGEST :]
    except OSError:
        return ""
    return next((f"from {_SHAPES[one]} to {_SHAPES[other]}" for one, other in pairwise(found)), "")
