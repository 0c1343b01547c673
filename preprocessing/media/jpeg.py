"""JPEGs as bytes: a stream is split into images, and a header is read. Nothing is decoded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
_START_OF_SCAN = 0xDA
_PART = re.compile(rb"\s*--[^\r\n]+\r\nContent-type: image/jpeg\r\nContent-length: (\d+)\r\n\r\n")
_LONGEST_LINES = 200
_END = 0xD9
_EXIF_MARKER = 0xE1
_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = frozenset({0xC0, 0xC1})
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
# In the data of a picture 0xFF is followed by 0x00, or is one of the marks at which a decoder can start again.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


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
    header = jpeg_header(data)
    return header.height, header.width


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What stands before the picture of a JPEG."""

    height: int
    width: int
    num_colours: int
    """1 for grey, 3 for colours, 4 for CMYK."""
    has_exif: bool


def jpeg_header(data: bytes) -> JpegHeader:
    """The header of a JPEG. Raises ValueError if it is not a JPEG."""
    has_exif = False
    for at, marker in _segments(data):
        if marker == _EXIF_MARKER and data[at + 4 : at + 8] == b"Exif":
            has_exif = True
        elif marker in _SIZE_MARKERS:
            if at + 10 > len(data):
                break
            height, width = data[at + 5 : at + 7], data[at + 7 : at + 9]
            return JpegHeader(int.from_bytes(height, "big"), int.from_bytes(width, "big"), data[at + 9], has_exif)
    raise ValueError("a JPEG without a frame header")


def height_field(data: bytes | memoryview) -> int | None:
    """Position of the two bytes that state a JPEG's height, if a smaller number there lets a decoder stop early.

    That holds for sequential ones in which one scan has all components: rows come from top to bottom, and a decoder
    stops after as many as the header states. None for the others. Raises ValueError if it is not a JPEG.
    """
    size_at = None
    for at, marker in _segments(data):
        if marker in _SIZE_MARKERS:
            size_at = at if marker in _SEQUENTIAL else None
        elif marker == _START_OF_SCAN:
            is_whole = size_at is not None and data[at + 4 : at + 5] == data[size_at + 9 : size_at + 10]
            return size_at + 5 if is_whole and size_at is not None else None
    raise ValueError("a JPEG without a picture")


def trim_jpeg(data: bytes) -> bytes:
    """A JPEG without what stands behind its end. Raises ValueError if it is cut off."""
    for at, marker in _segments(data):
        if marker == _END:
            return data[: at + 2]
    if (data := data.rstrip(b"\0")).endswith(EOI):
        return data  # something inside is broken: its decoder will say so
    raise ValueError("it is cut off")


def _segments(data: bytes | memoryview) -> Iterator[tuple[int, int]]:
    """(position of its 0xFF, marker) of each segment. Raises ValueError if it is not a JPEG.

    A marker may be preceded by any number of 0xFF; what stands between segments and is none is passed over, as decoders
    do.
    """
    if data[:2] != SOI:
        raise ValueError(f"not a JPEG: starts with {bytes(data[:4])!r}")
    position = 2
    while found := _MARKER.search(data, position):
        at, marker = found.end() - 2, data[found.end() - 1]
        yield at, marker
        if marker == _END:
            return
        position = at + 2 + (int.from_bytes(data[at + 2 : at + 4], "big") if marker not in _WITHOUT_LENGTH else 0)
