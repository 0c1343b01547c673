"""Write a file or a folder so that it appears under its name whole or not at all, also when the process is killed.

What is being written lies under a temporary name beside the target; it is flushed to disk, then renamed.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"
"""Ending of temporary names."""


def partial_path(path: Path) -> Path:
    """A temporary name beside `path` that nobody else uses, on this machine or on another that shares the folder."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path to write a file to, or to make a folder at. It becomes `path` when the block ends.

    An older file is replaced. If the block raises, `path` is left as it was and nothing else is left behind.
    """
    partial = partial_path(path)
    try:
        yield partial
        for folder, _, names in os.walk(partial):
            for name in names:
                flush(Path(folder, name))
        flush(partial)
        os.replace(partial, path)
        flush(path.parent)
    finally:
        remove(partial)


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Write the whole content of a file at once, as `atomic_write` does."""
    with atomic_write(path) as partial:
        partial.write_bytes(data)


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk and outlives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Delete a file or a folder with all it holds; nothing happens if it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Delete what killed processes left half written in `folder`. Only where nobody else is writing there now."""
    for path in folder.glob(f".*{PARTIAL}"):
        remove(path)
