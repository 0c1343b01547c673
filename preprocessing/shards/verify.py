"""Check a finished data set against its own records. Goes in: a folder of shards; comes out: a list of problems."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from preprocessing.media.jpeg import EOI, SOI
from preprocessing.schema import USABLE
from preprocessing.shards.archive import frame_offsets
from preprocessing.shards.index import Index, read_index
from preprocessing.shards.record import ShardRecord, check_tar, read_record
from preprocessing.shards.storage import Store


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a data set that is not as recorded."""

    shard: str
    """File name of the shard; empty where the problem concerns the index."""
    clip_id: str
    """Empty where the problem concerns a whole shard."""
    what: str


def verify(store: Store) -> Iterator[Problem | ShardRecord]:
    """Read every byte of every shard: yields the problems of a shard, then its record when it has been read.

    Checks size and SHA-256 of each tar, that each clip's JPEGs lie where the index says and begin and end as JPEGs,
    that the JSON member repeats the row, and that the shards on disk are those of the index.
    """
    index = read_index(store)
    clip_ids = index.table["clip_id"].to_pylist()
    if len(set(clip_ids)) != len(clip_ids):
        yield Problem("", "", f"{len(clip_ids) - len(set(clip_ids))} clips stand in the index twice")
    rows_of = _rows_by_shard(index)
    known = {f"{record.name}.tar" for record in index.shards}
    for name in sorted(name for name in store.sizes() if name.endswith(".tar") and name not in known):
        yield Problem(name, "", "is not in the index (left by a run that was not finished?)")
    for record in index.shards:
        yield from _verify_shard(store, record, index, rows_of.get(f"{record.name}.tar", []))
        yield record


def _rows_by_shard(index: Index) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, (shard, status) in enumerate(
        zip(index.table["shard"].to_pylist(), index.table["status"].to_pylist(), strict=True)
    ):
        if status in USABLE:
            rows.setdefault(shard, []).append(row)
    return rows


def _verify_shard(store: Store, record: ShardRecord, index: Index, rows: list[int]) -> Iterator[Problem]:
    tar = f"{record.name}.tar"
    stored = read_record(store, record.name)
    if stored is None or stored[0] != record:
        yield Problem(tar, "", f"{record.name}.parquet is missing or differs from the index")
    try:
        file = store.open(tar)
    except OSError as error:
        yield Problem(tar, "", f"cannot be read: {error}")
        return
    with file:
        if difference := check_tar(file, record):
            yield Problem(tar, "", difference)
        if file.size() != record.num_bytes:
            return  # nothing in it is where the index says
        for row in index.table.take(pa.array(rows, pa.int64())).to_pylist() if rows else []:
            if what := _check_clip(file, row):
                yield Problem(tar, row["clip_id"], what)


def _check_clip(file: pa.NativeFile, row: dict[str, object]) -> str:
    """What is wrong with a clip in its tar, empty if nothing is."""
    sizes, first = row["frame_sizes"], row["first_offset"]
    if not isinstance(sizes, list) or not isinstance(first, int) or len(sizes) != row["num_frames"]:
        return "its row contradicts itself"
    offsets = frame_offsets(first, sizes)
    for number, (offset, size) in enumerate(zip(offsets, sizes, strict=True), 1):
        if file.read_at(2, offset) != SOI or file.read_at(2, offset + size - 2) != EOI:
            return f"frame {number} is not where the index says"
    header_at = frame_offsets(first, [*sizes, 0])[-1] - 512
    header = bytes(file.read_at(512, header_at))
    member = json.loads(file.read_at(int(header[124:135], 8), header_at + 512))
    return "" if member["clip_id"] == row["clip_id"] else f"its JSON member belongs to {member['clip_id']!r}"
