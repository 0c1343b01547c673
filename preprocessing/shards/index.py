"""The index of a finished data set, index.parquet: one row per clip that went in, and what the data set is.

Its metadata (key b"adafocus", JSON) holds: info, spec, versions, shards (name, bytes, SHA-256 of each tar), digest.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing.schema import METADATA_KEY, DatasetInfo, ExtractionSpec, UserError, with_all_columns
from preprocessing.shards.record import ShardRecord
from preprocessing.shards.storage import Store

INDEX = "index.parquet"


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


@dataclass(frozen=True)
class Index(DatasetMetadata):
    """The metadata, and rows of all clips in the order of the annotations."""

    table: pa.Table

    @classmethod
    def of_table(cls, table: pa.Table) -> Index:
        """The index that was stored as `table`. Raises KeyError, TypeError or ValueError if it is none of ours."""
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
    stored = json.loads(schema.metadata[METADATA_KEY])
    return DatasetMetadata(
        info=DatasetInfo(**stored["info"] | {"class_names": tuple(stored["info"]["class_names"])}),
        spec=ExtractionSpec(**stored["spec"]),
        digest=stored["digest"],
        shards=tuple(ShardRecord(**record) for record in stored["shards"]),
        versions=stored["versions"],
    )


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
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{store.shown}/{INDEX} cannot be read ({error}); run `adafocus preprocess` again") from None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{store.shown}/{INDEX} is not an index of this program ({error!r})") from None
