"""The files of clips below a data root: their names as text, their paths, their sizes."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

import numpy as np

from preprocessing.schema import Clip, UserError

log = logging.getLogger(__name__)

_SHORT = 160
"""Bytes of a name that leave room for a prefix and endings: systems allow 255."""
_PART = 4096
"""Clips that a thread looks for at once."""
_MOST = 2**63 - 1
"""The largest number of an inode that is told from others."""


def readable_name(path: str) -> str:
    """A file's name as text: bytes that are no UTF-8 as `\\xNN`, which `resolve_source` understands."""
    return os.fsencode(path).decode(errors="backslashreplace")


def short_name(name: str) -> str:
    """The beginning of a file's name, short enough that something can be put before and behind it."""
    return os.fsdecode(os.fsencode(name)[:_SHORT]) if len(os.fsencode(name)) > _SHORT else name


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
    folders = _Folders(root)
    parts = [clips[start : start + _PART] for start in range(0, len(clips), _PART)]
    with ThreadPoolExecutor(16) as pool:  # a network disk answers many questions at once
        found = np.concatenate([np.empty((0, 3), np.int64), *pool.map(folders.find, parts)])
    sizes, inodes = found[:, 0], found[:, 1:]
    order = np.lexsort(inodes.T)  # rows of one file come one after the other, in their own order
    same = (inodes[order[1:]] == inodes[order[:-1]]).all(1) & (inodes[order[1:]] != 0).any(1)
    first, contradicting = order.copy(), list[tuple[str, str]]()
    for at in np.flatnonzero(same) + 1:
        first[at] = first[at - 1]
        clip, other = clips[order[at]], clips[first[at]]
        if other.split != clip.split and other.source != clip.source and sizes[order[at]] > 0:
            raise UserError(
                f"{other.source!r} of split {other.split} and {clip.source!r} of split {clip.split} are the same file; "
                "take one out of the list"
            )
        if other.labels != clip.labels and other.source != clip.source and sizes[order[at]] > 0:
            contradicting.append((other.source, clip.source))
    if contradicting:
        log.warning(
            "%d clips are the file of another clip, by links, and have other labels (first: %r and %r)",
            *(len(contradicting), *contradicting[0]),
        )
    numbers: list[int] = sizes.tolist()
    return numbers


class _Folders:
    """The folders of sources below a data root, each followed to where its links lead only once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._base = str(root.resolve())
        self._real: dict[str, str] = {}

    def find(self, clips: Sequence[Clip]) -> np.ndarray:
        """Size and inode (device, number) of each clip's source, int64 (N, 3); zeros where an inode is not known."""
        rows = np.zeros((len(clips), 3), np.int64)
        for row, clip in zip(rows, clips, strict=True):
            row[:] = self._find_file(clip) or self._find_any(clip)
        return rows

    def _find_file(self, clip: Clip) -> tuple[int, int, int] | None:
        """Of a plain file in a folder below the root; None for all else."""
        head, _, name = clip.source.rpartition("/")
        is_plain = not clip.source.startswith("/") and name not in ("", ".", "..") and "\\x" not in clip.source
        if clip.source_kind != "video" or not is_plain:
            return None
        if (folder := self._real.get(head)) is None:
            real = os.path.realpath(os.path.join(self._base, head))
            is_inside = real == self._base or real.startswith(f"{self._base.rstrip(os.sep)}{os.sep}")
            folder = self._real[head] = real if is_inside else ""
        try:
            stat = os.lstat(f"{folder}/{name}") if folder else None
        except FileNotFoundError:
            return -1, 0, 0
        except (OSError, ValueError):
            return None
        if stat is None or not S_ISREG(stat.st_mode):
            return None
        return stat.st_size, stat.st_dev & _MOST, stat.st_ino & _MOST

    def _find_any(self, clip: Clip) -> tuple[int, int, int]:
        source = find_source(self._root, clip)
        device, number = source.inode or (0, 0)
        return source.num_bytes, device & _MOST, number & _MOST
