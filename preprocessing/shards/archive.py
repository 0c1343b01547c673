"""A tar that is written as a stream and read by byte offsets. Goes in: named members; comes out: offsets and a hash."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable
from typing import IO, Any

BLOCK = 512
"""Bytes to a block: a member is a block of header, then its data in whole blocks."""


def frame_offsets(first_offset: int, sizes: Iterable[int]) -> list[int]:
    """Byte offsets of a clip's JPEGs in its tar: each is followed by padding to 512 bytes and the next one's header."""
    offsets, offset = [], first_offset
    for size in sizes:
        offsets.append(offset)
        offset += -(-size // BLOCK) * BLOCK + BLOCK
    return offsets


_TEMPLATE = tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT)
_SIZE, _CHECKSUM = slice(124, 136), slice(148, 156)
_REST = sum(_TEMPLATE) - sum(_TEMPLATE[_SIZE]) - sum(_TEMPLATE[_CHECKSUM]) + sum(b" " * 8)
"""Sum of a header's bytes without name and size, its checksum taken for blanks."""


def _header(name: str, size: int) -> bytes:
    """What `TarInfo.tobuf` gives for a member of that ASCII name and size, at a tenth of its cost."""
    if len(name) > 100 or size >= 8**11:
        raise ValueError(f"{name}: no room in a tar header for that name or {size} bytes")
    header, word, octal = bytearray(_TEMPLATE), name.encode("ascii"), b"%011o\0" % size
    header[: len(word)], header[_SIZE] = word, octal
    header[_CHECKSUM] = b"%06o\0 " % (_REST + sum(word) + sum(octal))
    return bytes(header)


class TarStream:
    """Writes a tar as it comes, hashing along, and can go back to a mark to forget a clip that failed half way.

    Not tarfile.TarFile: that keeps a record of every member in memory, and a shard may have a million.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.offset = 0

    def add(self, name: str, data: bytes) -> int:
        """Append a member. Returns the offset of its data."""
        at = self.offset + BLOCK
        self._write(b"".join((_header(name, len(data)), data, b"\0" * (-len(data) % BLOCK))))
        return at

    def mark(self) -> tuple[int, Any]:
        return self.offset, self._hash.copy()

    def back_to(self, mark: tuple[int, Any]) -> None:
        """Forget everything that was added after `mark`."""
        self.offset, self._hash = mark[0], mark[1].copy()
        self._file.seek(self.offset)
        self._file.truncate()

    def close(self) -> str:
        """Write the end of the archive. Returns the SHA-256 of all of it."""
        self._write(b"\0" * (2 * BLOCK))
        self._write(b"\0" * (-self.offset % tarfile.RECORDSIZE))
        self._file.flush()
        return self._hash.hexdigest()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.offset += len(data)
