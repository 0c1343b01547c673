"""A data root on object storage: what its folders hold is mirrored here, and a source is fetched while it is read.

The mirror has the annotation files as they are, and of every other file an empty one of the same name and length, which
takes no room: so data sets are listed as they are on a disk.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import posixpath
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pyarrow.fs as pafs

from preprocessing.addresses import without_secrets
from preprocessing.schema import UserError
from preprocessing.shards.storage import Store

log = logging.getLogger(__name__)

ANNOTATIONS = (".csv", ".txt", ".json", ".tsv", ".md")
"""Endings of the files that a data set is described by, in small letters."""
WAITS_S = (1.0, 4.0)
"""Pauses before a transfer that has failed is made again."""
_SIDE_BY_SIDE = 16
_LONGEST_NAME = 255
"""Bytes of a file's name at most, on nearly all disks."""
_LEAST_END, _MOST_END, _END_SHARE = 1 << 20, 64 << 20, 32
"""Bytes of a file's end that are fetched with its beginning, a share of all: many formats have their index there."""

Result = TypeVar("Result")


def _climbs(name: str) -> bool:
    return ".." in name.split("/")


def _can_be_a_path(name: str) -> bool:
    """Is an object's name one that a file below a folder can have?"""
    parts = name.split("/")
    is_short = all(len(part.encode(errors="surrogateescape")) <= _LONGEST_NAME for part in parts)
    return is_short and not {"", ".", ".."} & set(parts)


def _in_a_line(error: Exception) -> str:
    return without_secrets(" ".join(str(error).split()))


def _parents(name: str) -> Iterator[str]:
    """Names of the folders around a file."""
    while name := name.rpartition("/")[0]:
        yield name


def _parts(size: int, first: int | None) -> list[tuple[int, int]]:
    """Ranges of a file's bytes that are fetched: all of it, or `first` ones and its end."""
    end = min(max(_LEAST_END, size // _END_SHARE), _MOST_END)
    return [(0, size)] if first is None or size <= first + end else [(0, first), (size - end, size)]


class FetchError(Exception):
    """Something far away could not be had, though it was asked for again and again."""


class FarRoot:
    """The files below a URL. Picklable, so that tasks on other machines can fetch from it."""

    def __init__(self, url: str) -> None:
        self._store = Store(url)
        self.shown = self._store.shown

    def mirror(self, folder: Path) -> None:
        """Make the mirror in an empty folder. Raises UserError if there is nothing below the URL."""
        try:
            self._mirror(folder)
        except FetchError as error:
            raise UserError(f"{self.shown} cannot be read: {_in_a_line(error)}") from None

    def _mirror(self, folder: Path) -> None:
        sizes = self._sizes("")
        if not sizes:
            raise UserError(f"there are no files below {self.shown}: give the folder of the videos as --data-root")
        folders = {parent for name in sizes for parent in _parents(name)}
        left_out = {name: None for name in sizes if not _can_be_a_path(name) or name in folders}
        if left_out:
            words = "are left out, for no disk could hold them under such names"
            log.warning("%s: %d objects %s (first: %r)", self.shown, len(left_out), words, next(iter(left_out)))
        texts = []
        for name, size in sizes.items():
            if name in left_out:
                continue
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.lower().endswith(ANNOTATIONS):
                texts.append(name)
            else:
                path.touch()
                os.truncate(path, size)
        with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
            list(pool.map(lambda name: self._fetch(name, folder / name, sizes[name]), texts))

    @contextlib.contextmanager
    def fetched(self, source: str, is_folder: bool, first: int | None = None) -> Iterator[Path]:
        """A source on this machine, until the block ends: a file, or a folder of files. The path leads nowhere if it is
        not there. Raises ValueError if it cannot be fetched while others can, UserError if nothing can.

        `first`: of a file that is larger by far only so many bytes of its beginning and what may be its index at its
        end; nothing but zeros stand between.
        """
        with tempfile.TemporaryDirectory(prefix="adafocus-") as scratch:
            target = Path(scratch) / posixpath.basename(source)
            try:
                self._fetch_source(source, is_folder, first, target)
            except (OSError, FetchError) as error:
                reason = _in_a_line(error)
                if not self._answers():
                    raise UserError(f"{source} of {self.shown}: {reason}") from None
                raise ValueError(f"{source} cannot be fetched: {reason}") from None
            yield target

    def _fetch_source(self, source: str, is_folder: bool, first: int | None, target: Path) -> None:
        sizes = self._sizes(source) if is_folder else self._size(source)
        sizes = {name: size for name, size in sizes.items() if not name or _can_be_a_path(name)}
        parts = {name: [(0, size)] if is_folder else _parts(size, first) for name, size in sizes.items()}
        needed = sum(end - start for each in parts.values() for start, end in each)
        free = shutil.disk_usage(target.parent).free
        if needed > free:
            raise UserError(
                f"no space left in {target.parent} for {source}: {needed} bytes of {free} (TMPDIR moves it)"
            )

        def fetch(name: str) -> None:
            path = target / name if is_folder else target
            path.parent.mkdir(parents=True, exist_ok=True)
            far = posixpath.join(source, name) if is_folder else source
            if len(parts[name]) == 1:
                self._fetch(far, path, sizes[name])
            else:
                self._fetch_parts(far, path, parts[name])

        with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
            list(pool.map(fetch, sizes))

    def _answers(self) -> bool:
        """Can the root be asked for, whatever became of an object in it?"""
        try:
            self._store.fs.get_file_info(self._path(""))
        except OSError:
            return False
        return True

    def _path(self, name: str) -> str:
        """Path in the file system. Raises ValueError for a name that leads out of the root."""
        plain = posixpath.normpath(name) if name else ""
        if plain.startswith("/") or _climbs(plain) or "\0" in plain:
            raise ValueError(f"{name!r} leaves the data root")
        return posixpath.join(self._store.path("").rstrip("/"), plain) if plain else self._store.path("").rstrip("/")

    def _size(self, name: str) -> dict[str, int]:
        """Bytes of a file, if it is there."""
        info = self._persist(lambda: self._store.fs.get_file_info(self._path(name)), name)
        return {"": info.size} if info.is_file else {}

    def _sizes(self, folder: str) -> dict[str, int]:
        """Bytes of all files in a folder and below, by their paths from there."""
        root = self._path(folder)
        selector = pafs.FileSelector(root, recursive=True, allow_not_found=True)
        infos = self._persist(lambda: self._store.fs.get_file_info(selector), folder)
        # An object whose name ends with "/" stands for a folder: consoles make one for each.
        files = [info for info in infos if info.is_file and not info.path.endswith("/")]
        return {info.path.removeprefix(root).removeprefix("/"): info.size for info in files}

    def _fetch(self, name: str, path: Path, size: int) -> None:
        def transfer() -> None:
            with self._store.fs.open_input_stream(self._path(name)) as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target, 4 << 20)
                if target.tell() != size:
                    raise OSError(f"{target.tell()} bytes came of {size}")

        self._persist(transfer, name)

    def _fetch_parts(self, name: str, path: Path, parts: Sequence[tuple[int, int]]) -> None:
        def transfer() -> None:
            with self._store.fs.open_input_file(self._path(name)) as source, open(path, "wb") as target:
                for start, end in parts:
                    target.seek(start)
                    target.write(source.read_at(end - start, start))

        self._persist(transfer, name)

    def _persist(self, work: Callable[[], Result], name: str) -> Result:
        """Do it, again and again if it fails. Raises FetchError if it keeps failing, UserError for a full disk."""
        for wait_s in (*WAITS_S, None):
            try:
                return work()
            except FileNotFoundError:
                raise
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    where = tempfile.gettempdir()
                    raise UserError(f"no space left in {where} for {name} (TMPDIR moves it)") from None
                if wait_s is None:
                    raise FetchError(str(error)) from None
                time.sleep(wait_s)
        raise AssertionError("unreachable: the last try returns or raises")
