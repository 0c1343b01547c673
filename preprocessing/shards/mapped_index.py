"""A memory-mapped copy of the index: all processes of a machine share its pages, and only those that are read take
memory. Made when it is needed, never the only copy of anything.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import fields
from pathlib import Path

import pyarrow as pa

from preprocessing.files import atomic_write
from preprocessing.schema import INDEX_SCHEMA
from preprocessing.shards.index import DatasetMetadata, Index, read_index, read_metadata
from preprocessing.shards.storage import Store

MAPPED = "index.arrow"


def map_index(store: Store) -> tuple[Index, Path]:
    """The index with its rows memory-mapped, and the mapped file's path, for `open_mapped` in another process.

    The file is made beside index.parquet, or in the machine's folder for temporary files if that is far away or
    read-only. Raises UserError if there is no index.
    """
    metadata = read_metadata(store)
    shared = Path(tempfile.gettempdir()) / f"adafocus-{os.getuid()}-{metadata.digest}.arrow"
    paths = [shared] if store.local is None else [store.local / MAPPED, shared]
    for path in paths:
        if (index := _open_if_valid(path, metadata)) is not None:
            return index, path
        try:
            write_mapped(read_index(store), path)
        except OSError:
            if path is shared:
                raise
            continue
        return open_mapped(path), path
    raise AssertionError("unreachable: the last path returns or raises")


def open_mapped(path: Path) -> Index:
    """A memory-mapped index that `map_index` made."""
    return Index.of_table(pa.ipc.open_file(pa.memory_map(str(path))).read_all())


def open_checked(path: Path) -> Index:
    """The same of a file that may hold anything: what is read is certain to lie in it. Raises what `open_mapped` does,
    or ArrowInvalid."""
    index = open_mapped(path)
    index.table.validate(full=True)
    return index


def write_mapped(index: Index, path: Path) -> None:
    """Write the file of a memory-mapped index."""
    with (
        atomic_write(path) as partial,
        pa.OSFile(str(partial), "wb") as sink,
        pa.ipc.new_file(sink, index.table.schema) as writer,
    ):
        writer.write_table(index.table.combine_chunks())


def _open_if_valid(path: Path, metadata: DatasetMetadata) -> Index | None:
    """The memory-mapped index in a file, if the file is ours and holds the index that has this metadata."""
    try:
        if path.stat().st_uid != os.getuid() and path.parent == Path(tempfile.gettempdir()):
            return None  # anybody may put a file of that name there
        index = open_checked(path)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, AttributeError):
        return None
    has_all = set(INDEX_SCHEMA.names) <= set(index.table.column_names)  # an earlier version's has fewer
    is_same = all(getattr(index, field.name) == getattr(metadata, field.name) for field in fields(metadata))
    return index if has_all and is_same else None
