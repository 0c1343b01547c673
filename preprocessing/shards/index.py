"""The index of a data set: one row per clip that went in. Goes in: finished shards; comes out: index.parquet.

Its metadata (key b"adafocus", JSON) holds: info, spec, versions, shards (name, bytes, SHA-256 of each tar), digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing.files import atomic_write
from preprocessing.schema import INDEX_SCHEMA, METADATA_KEY, Clip, DatasetInfo, ExtractionSpec, UserError
from preprocessing.shards.storage import Store
from preprocessing.shards.writer import ShardRecord

INDEX = "index.parquet"
MAPPED = "index.arrow"
"""The same rows uncompressed, to be memory-mapped by readers. Made when needed, never the only copy."""


@dataclass(frozen=True, slots=True)
class Index:
    """Rows of all clips in the order of the annotations, and what the data set is."""

    table: pa.Table
    info: DatasetInfo
    spec: ExtractionSpec
    digest: str
    shards: tuple[ShardRecord, ...]
    versions: dict[str, Any]


def build_index(
    store: Store, clips: Sequence[Clip], info: DatasetInfo, spec: ExtractionSpec, records: Sequence[ShardRecord]
) -> Index:
    """Merge the rows of all shards, one per clip, and write index.parquet: from then on the data set is complete.

    Where a clip has been tried more than once the last shard's row holds.
    """
    with ThreadPoolExecutor(8) as pool:
        tables = list(pool.map(lambda record: _read_rows(store, record.name), records))
    versions = _versions([json.loads(table.schema.metadata[METADATA_KEY]) for table in tables])
    rows = pa.concat_tables(table.cast(INDEX_SCHEMA) for table in tables).combine_chunks()
    last = {clip_id: row for row, clip_id in enumerate(rows["clip_id"].to_pylist())}
    lost = [clip.clip_id for clip in clips if clip.clip_id not in last]
    if lost or len(last) != len(clips):
        raise ValueError(f"{len(clips)} clips went in, {len(last)} came out; the first lost one is {lost[:1]}")
    rows = rows.take(pa.array([last[clip.clip_id] for clip in clips], pa.int64())).replace_schema_metadata(None)
    told = {
        "info": info.to_dict(),
        "spec": asdict(spec),
        "versions": versions,
        "shards": [asdict(record) for record in records],
        "digest": _digest(rows, info, spec, records),
    }
    rows = rows.replace_schema_metadata({METADATA_KEY: json.dumps(told, sort_keys=True)})
    with store.atomic_write(INDEX) as partial:
        pq.write_table(rows, partial, compression="zstd", row_group_size=16_384)
    if store.local is not None:
        _write_mapped(rows, store.local / MAPPED)
    return _index(rows, told)


def read_index(store: Store, columns: Sequence[str] | None = None) -> Index:
    """The index of a finished data set. Raises UserError if there is none or it cannot be read."""
    try:
        with store.open(INDEX) as file:
            table = pq.read_table(file, columns=None if columns is None else list(columns))
    except FileNotFoundError:
        raise UserError(
            f"{store.shown}: there is no {INDEX}, so no finished data set; "
            f"run `adafocus preprocess --out {store.shown}`"
        ) from None
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{store.shown}/{INDEX} cannot be read ({error}); run `adafocus preprocess` again") from None
    try:
        return _index(table, json.loads(table.schema.metadata[METADATA_KEY]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{store.shown}/{INDEX} is not an index of this program ({error!r})") from None


def mapped_index(store: Store) -> tuple[Index, Path]:
    """The index with its rows memory-mapped: all processes of a machine share one copy, and only pages that are read
    take memory. Also the mapped file's path, for `open_mapped` in another process.

    The file is made beside index.parquet, or in the machine's folder for temporary files if that is far away or
    read-only.
    """
    with _open_index(store) as file:
        told_bytes = pq.read_schema(file).metadata.get(METADATA_KEY, b"{}")
    digest = json.loads(told_bytes).get("digest", "none")
    places = [] if store.local is None else [store.local / MAPPED]
    places.append(Path(tempfile.gettempdir()) / f"adafocus-{os.getuid()}-{digest}.arrow")
    for path in places:
        if (index := _open_if(path, told_bytes)) is not None:
            return index, path
        try:
            _write_mapped(read_index(store).table, path)
        except OSError:
            if path is places[-1]:
                raise
            continue
        return open_mapped(path), path
    raise AssertionError("unreachable: the last place returns or raises")


def open_mapped(path: Path) -> Index:
    """A memory-mapped index that `mapped_index` made."""
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    return _index(table, json.loads(table.schema.metadata[METADATA_KEY]))


def _open_index(store: Store) -> pa.NativeFile:
    try:
        return store.open(INDEX)
    except FileNotFoundError:
        read_index(store)  # raises with words
        raise


def _open_if(path: Path, told: bytes) -> Index | None:
    """The mapped index if it is ours and of these rows."""
    try:
        if path.stat().st_uid != os.getuid() and path.parent == Path(tempfile.gettempdir()):
            return None  # anybody may put a file of that name there
        index = open_mapped(path)
    except (pa.ArrowInvalid, OSError, KeyError, ValueError):
        return None
    return index if index.table.schema.metadata[METADATA_KEY] == told else None


def _write_mapped(table: pa.Table, path: Path) -> None:
    with (
        atomic_write(path) as partial,
        pa.OSFile(str(partial), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table.combine_chunks())


def _read_rows(store: Store, name: str) -> pa.Table:
    with store.open(f"{name}.parquet") as file:
        return pq.read_table(file)


def _versions(told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the shards were made with: ffmpeg's versions (more than one on a mixed cluster) and its arguments."""
    return {"ffmpeg": sorted({item["versions"]["ffmpeg"] for item in told}), "argv": told[0]["argv"] if told else []}


def _digest(rows: pa.Table, info: DatasetInfo, spec: ExtractionSpec, records: Sequence[ShardRecord]) -> str:
    """Names the content: facts, settings, the shards' bytes and every row but for the time it took."""
    told = [info.to_dict(), asdict(spec), [(record.name, record.sha256) for record in records]]
    state = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    small = rows.select(["clip_id", "split", "labels", "shard", "key", "status", "num_frames", "first_offset"])
    for batch in small.to_batches(max_chunksize=10_000):
        state.update(json.dumps(batch.to_pydict(), sort_keys=True).encode())
    return state.hexdigest()[:16]


def _index(table: pa.Table, told: dict[str, Any]) -> Index:
    info = told["info"] | {"class_names": tuple(told["info"]["class_names"])}
    shards = tuple(ShardRecord(**record) for record in told["shards"])
    spec = ExtractionSpec(**told["spec"])
    return Index(table, DatasetInfo(**info), spec, told["digest"], shards, told["versions"])
