"""The files of clips below a data root: their names as text, their paths, their sizes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from preprocessing.schema import Clip, UserError


def readable_name(path: str) -> str:
    """A file's name as text: bytes that are no UTF-8 as `\\xNN`, which `resolve_source` understands."""
    return os.fsencode(path).decode(errors="backslashreplace")


def resolve_source(root: Path, source: str) -> Path:
    """Absolute path of a clip's source. Raises ValueError if it does not stay below the data root, links included."""
    base = root.resolve()
    path = base / source
    if "\\x" in source and not os.path.lexists(path):
        path = base / os.fsdecode(re.sub(rb"\\x([89a-f][0-9a-f])", _byte, os.fsencode(source)))
    path = path.resolve()
    if not path.is_relative_to(base) or path == base:
        by_link = os.path.normpath(base / source).startswith(f"{base}{os.sep}")
        raise ValueError(f"{source!r} leaves the data root{' by a link' if by_link else ''}")
    return path


def _byte(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 16)])


@dataclass(frozen=True, slots=True)
class SourceFile:
    """What the disk says of a clip's source."""

    num_bytes: int = -1
    """Size; for a folder of frames a guess; -1 if it is missing or outside the data root."""
    inode: tuple[int, int] | None = None
    """Names the file, whatever the path by which it was found; None where that is not known."""


def find_source(root: Path, clip: Clip) -> SourceFile:
    """What the disk says of a clip's source."""
    try:
        path = resolve_source(root, clip.source)
        stat = path.stat()
    except (OSError, ValueError):
        return SourceFile()
    inode = (stat.st_dev, stat.st_ino) if stat.st_ino else None
    if clip.source_kind == "frames":
        return SourceFile((clip.listed_frames or 40) * 20_000, inode) if path.is_dir() else SourceFile()
    return SourceFile(stat.st_size, inode) if path.is_file() else SourceFile()


def measure_sources(root: Path, clips: Sequence[Clip]) -> list[int]:
    """Bytes of each clip's source, -1 where it is missing. Raises UserError for a file that is in two splits under two
    names, by links or by a disk that does not tell upper from lower case."""
    with ThreadPoolExecutor(16) as pool:  # a network disk answers many questions at once
        sources = list(pool.map(lambda clip: find_source(root, clip), clips, chunksize=256))
    first: dict[tuple[int, int], Clip] = {}
    for clip, source in zip(clips, sources, strict=True):
        other = clip if source.inode is None else first.setdefault(source.inode, clip)
        if other.split != clip.split and other.source != clip.source and source.num_bytes > 0:
            raise UserError(
                f"{other.source!r} of split {other.split} and {clip.source!r} of split {clip.split} are the same file; "
                "take one out of the list"
            )
    return [source.num_bytes for source in sources]
