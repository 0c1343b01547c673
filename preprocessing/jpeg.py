"""Cut a stream of concatenated JPEGs into images. Goes in: chunks of bytes; comes out: one JPEG at a time."""

from __future__ import annotations

from collections.abc import Iterator

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
_START_OF_SCAN = 0xDA
_NEXT = EOI + SOI + b"\xff"
_PROGRESSIVE = 0xC2
_SIZE_MARKERS = frozenset({0xC0, 0xC1, _PROGRESSIVE})


class JpegSplitter:
    """Feed it chunks, iterate over what is complete.

    The header's segments are skipped by their length, so that a quantisation table or a comment may hold any bytes; in
    entropy-coded data the end marker cannot occur (ISO/IEC 10918-1, B.1.1.5: byte stuffing).
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0  # entropy-coded bytes before this position hold no end marker; 0 = header not passed yet

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Append `chunk`, yield every JPEG that it completes. Raises ValueError where no JPEG starts."""
        self._buffer += chunk
        taken = 0
        while (end := self._find_end(taken)) is not None:
            yield bytes(memoryview(self._buffer)[taken:end])
            taken, self._searched = end, 0
        if taken:
            del self._buffer[:taken]
            self._searched = max(self._searched - taken, 0)

    @property
    def pending(self) -> int:
        """Bytes of an unfinished image."""
        return len(self._buffer)

    def _find_end(self, start: int) -> int | None:
        if not self._searched:
            scan = scan_offset(self._buffer, start)
            if scan is None:
                return None
            self._searched = scan
        # Longer patterns are found faster: look for an end with the next start behind it, then at the very end.
        end = self._buffer.find(_NEXT, self._searched)
        if end >= 0:
            return end + 2
        if self._buffer.endswith(EOI, self._searched):
            return len(self._buffer)
        self._searched = max(len(self._buffer) - len(_NEXT) + 1, self._searched)
        return None


def scan_offset(data: bytes | bytearray, start: int = 0) -> int | None:
    """Position of the first entropy-coded byte of the JPEG at `start`, None while its header is incomplete.

    Raises ValueError if no JPEG starts there.
    """
    if len(data) < start + 2:
        return None
    if data[start : start + 2] != SOI:
        raise ValueError(f"expected a JPEG at byte {start}, found {bytes(data[start : start + 4])!r}")
    position = start + 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            raise ValueError(f"broken JPEG header at byte {position}")
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if data[position + 1] == _START_OF_SCAN:
            return position + 2 + length
        position += 2 + length
    return None


def jpeg_size(data: bytes) -> tuple[int, int]:
    """(height, width) in pixels from a JPEG's header. Raises ValueError if it is not a JPEG."""
    at = _frame_header(data)
    height, width = data[at + 5 : at + 7], data[at + 7 : at + 9]
    return int.from_bytes(height, "big"), int.from_bytes(width, "big")


def height_field(data: bytes) -> int | None:
    """Where a JPEG states its height, two bytes, if decoding may end early by stating less there.

    That holds for sequential ones in which one scan has all components: rows come from top to bottom, and a decoder
    that is told of fewer rows stops after them. None for the others. Raises ValueError if it is not a JPEG.
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
