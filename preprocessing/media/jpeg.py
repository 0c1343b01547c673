"""JPEGs as bytes: a stream is split into images, and a header is read. Nothing is decoded."""

from __future__ import annotations

import re
from collections.abc import Iterator

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
_START_OF_SCAN = 0xDA
_PART = re.compile(rb"\s*--[^\r\n]+\r\nContent-type: image/jpeg\r\nContent-length: (\d+)\r\n\r\n")
_LONGEST_LINES = 200
_PROGRESSIVE = 0xC2
_SIZE_MARKERS = frozenset({0xC0, 0xC1, _PROGRESSIVE})


class JpegSplitter:
    """Splits a stream in ffmpeg's `mpjpeg` format, fed in chunks of any size, into its images.

    Before each image stand a few lines, which state its length, so that nothing has to be searched in its data.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Append `chunk`, yield every JPEG that it completes. Raises ValueError where no lines or no JPEG stand."""
        self._buffer += chunk
        start = 0
        while part := _PART.match(self._buffer, start):
            end = part.end() + int(part[1])
            if len(self._buffer) < end:
                break
            image = bytes(memoryview(self._buffer)[part.end() : end])
            if image[:2] != SOI or image[-2:] != EOI:
                raise ValueError(f"expected a JPEG, found {image[:4]!r} to {image[-2:]!r}")
            yield image
            start = end
        del self._buffer[:start]
        if not part and len(self._buffer) > _LONGEST_LINES:
            raise ValueError(f"expected the lines before a JPEG, found {bytes(self._buffer[:40])!r}")

    @property
    def pending(self) -> int:
        """Number of bytes that wait for the rest of their image."""
        return len(self._buffer)


def jpeg_size(data: bytes) -> tuple[int, int]:
    """(height, width) in pixels from a JPEG's header. Raises ValueError if it is not a JPEG."""
    at = _frame_header(data)
    height, width = data[at + 5 : at + 7], data[at + 7 : at + 9]
    return int.from_bytes(height, "big"), int.from_bytes(width, "big")


def height_field(data: bytes) -> int | None:
    """Position of the two bytes that state a JPEG's height, if a smaller number there lets a decoder stop early.

    That holds for sequential ones in which one scan has all components: rows come from top to bottom, and a decoder
    stops after as many as the header states. None for the others. Raises ValueError if it is not a JPEG.
    """
    at = _frame_header(data)
    components, scan = data[at + 9 : at + 10], data.find(bytes((0xFF, _START_OF_SCAN)), at)
    whole = data[at + 1] != _PROGRESSIVE and scan > 0 and data[scan + 4 : scan + 5] == components
    return at + 5 if whole else None


def _frame_header(data: bytes) -> int:
    """Position of the frame header's marker (SOF)."""
    if data[:2] != SOI:
        raise ValueError(f"not a JPEG: starts with {bytes(data[:4])!r}")
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        if data[position + 1] in _SIZE_MARKERS:
            return position
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    raise ValueError("a JPEG without a frame header")
