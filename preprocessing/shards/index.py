"""The index of a finished data set, index.parquet: one row per clip that went in, and what the data set is.

Its metadata (key b"adafocus", JSON) holds: info, spec, versions, shards (name, bytes, SHA-256 of each tar), digest.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from preprocessing.schema import (
    INDEX_SCHEMA,
    METADATA_KEY,
    DatasetInfo,
    ExtractionSpec,
    UserError,
    with_all_columns,
)
from preprocessing.shards.record import ShardRecord
from preprocessing.shards.storage import Store
from preprocessing.typed_record import typed_record

INDEX = "index.parquet"
_DIGEST = re.compile(r"\w{1,64}", re.ASCII)


@dataclass(frozen=True)
class DatasetMetadata:
    """All that the index says of the data set as a whole."""

    info: DatasetInfo
    spec: ExtractionSpec
    digest: str
    """Names the content: it changes with any frame and with any row."""
    shards: tuple[ShardRecord, ...]
    versions: dict[str, Any]
    """What the frames were made with: ffmpeg's versions and its arguments."""
    boxes: str = ""
    """Names the objects' boxes, which the digest does not: most training reads none. Empty: there are none, or the
    index is older."""

    @property
    def version(self) -> str:
        """Names all that training may read: the digest, and the boxes behind a `+` where there are some."""
        return f"{self.digest}+{self.boxes}" if self.boxes else self.digest


@dataclass(frozen=True)
class Index(DatasetMetadata):
    """The metadata, and rows of all clips in the order of the annotations."""

    table: pa.Table = field(kw_only=True)

    @classmethod
    def of_table(cls, table: pa.Table) -> Index:
        """The index that was stored as `table`. Raises KeyError, TypeError or ValueError if it is none of ours."""
        for column in table.schema:
            if column.name in INDEX_SCHEMA.names and column.type != INDEX_SCHEMA.field(column.name).type:
                raise TypeError(f"column {column.name} is {column.type}")
        return cls(**vars(parse_metadata(table.schema)), table=table)


def read_index(store: Store, columns: Sequence[str] | None = None) -> Index:
    """The index of a finished data set. Raises UserError if there is none or it cannot be read."""
    with _errors_in_words(store):
        with store.open(INDEX) as file:
            table = pq.read_table(file, columns=None if columns is None else list(columns))
        if columns is None:
            table = with_all_columns(table)
        return Index.of_table(table)


def read_metadata(store: Store | str | Path) -> DatasetMetadata:
    """What the index says of the data set as a whole, without its rows. Raises UserError as `read_index` does.

    A process reads it once; after that it only asks whether the file is still the same.
    """
    store = store if isinstance(store, Store) else Store(store)
    with _errors_in_words(store):
        return _read_metadata(store.url, store.version(INDEX))


@functools.lru_cache(maxsize=16)
def _read_metadata(url: str, version: tuple[int, ...]) -> DatasetMetadata:
    with Store(url).open(INDEX) as file:
        return parse_metadata(pq.read_schema(file))


def parse_metadata(schema: pa.Schema) -> DatasetMetadata:
    """The metadata in an index's schema. Raises KeyError, TypeError or ValueError if it is none of ours."""
    stored = stored_metadata(schema)
    if not _DIGEST.fullmatch(stored["digest"]):
        raise ValueError(f"the digest is {stored['digest']!r}")  # it becomes the name of a file
    if not isinstance(stored["versions"], dict):
        raise TypeError("the versions are none")
    if any(unicodedata.category(letter) == "Cc" for name in stored["info"]["class_names"] for letter in name):
        raise ValueError("a class name holds control characters")
    return DatasetMetadata(
        info=typed_record(DatasetInfo, stored["info"]),
        spec=typed_record(ExtractionSpec, stored["spec"]),
        digest=stored["digest"],
        shards=tuple(typed_record(ShardRecord, record) for record in stored["shards"]),
        versions=stored["versions"],
        boxes=str(stored.get("boxes", "")),
    )


def stored_metadata(schema: pa.Schema) -> dict[str, Any]:
    """The same as the plain values that were written."""
    stored: dict[str, Any] = json.loads(schema.metadata[METADATA_KEY])
    return stored


def content_digest(info: dict[str, Any], spec: dict[str, Any], rows: pa.Table, shards: Sequence[ShardRecord]) -> str:
    """Names the content: facts, settings, the shards' bytes and every row but for the time it took."""
    facts = [info, spec, [(record.name, record.sha256) for record in shards]]
    state = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    names = ["clip_id", "split", "labels", "shard", "key", "status", "num_frames", "first_offset"]
    if "frame_indices" in rows.column_names and rows["frame_indices"].null_count < rows.num_rows:
        names += ["source_frames", "frame_indices"]  # of data sets of which some frames were left out
    small = rows.select(names)
    for batch in small.combine_chunks().to_batches(max_chunksize=10_000):
        state.update(json.dumps(batch.to_pydict(), sort_keys=True).encode())
    return state.hexdigest()[:16]


def has_boxes(store: Store) -> bool:
    """Has any clip boxes of its objects? Raises UserError as `read_index` does."""
    if read_metadata(store).boxes:
        return True
    table = read_index(store, ["boxes"]).table  # older indexes do not say it
    return "boxes" in table.column_names and table["boxes"].null_count < table.num_rows


def boxes_digest(rows: pa.Table) -> str:
    """Names the boxes of all rows; empty if no row has any."""
    column = rows["boxes"].combine_chunks()
    if column.null_count == len(column):
        return ""
    lengths = pc.list_value_length(column).fill_null(-1).to_numpy()
    corners = column.flatten().flatten().to_numpy(zero_copy_only=False)
    return hashlib.sha256(lengths.astype(np.int64).tobytes() + corners.astype(np.float32).tobytes()).hexdigest()[:16]


@contextmanager
def _errors_in_words(store: Store) -> Iterator[None]:
    """Turns what goes wrong when an index is read into UserError."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(
            f"{store.shown}: there is no {INDEX}, so no finished data set; "
            f"run `adafocus preprocess --out {store.shown}`"
        ) from None
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{store.shown}/{INDEX} cannot be read ({reason}); run `adafocus preprocess` again") from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        reason = " ".join(repr(error).split())[:200]
        raise UserError(f"{store.shown}/{INDEX} is not an index of this program ({reason})") from None
