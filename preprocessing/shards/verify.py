"""Check a finished data set against its own records. Goes in: a folder of shards; comes out: a list of problems.

An index may come from a stranger: whatever stands in it is a problem that is named, never a crash.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.media.jpeg import EOI, SOI
from preprocessing.schema import SPLITS, STATUSES, USABLE, UserError
from preprocessing.shards.archive import BLOCK, frame_offsets
from preprocessing.shards.index import INDEX, Index, boxes_digest, content_digest, read_index, stored_metadata
from preprocessing.shards.mapped_index import MAPPED, open_checked
from preprocessing.shards.record import ShardRecord, check_tar, read_rows
from preprocessing.shards.storage import Store

_MOST_BYTES = 1 << 62
MOST_JSON = 16 << 20
"""Bytes of a JSON member that are read at most."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a data set that is not as recorded."""

    shard: str
    """File name of the shard; empty where the problem concerns the index."""
    clip_id: str
    """Empty where the problem concerns a whole shard."""
    what: str


def verify(store: Store, index: Index | None = None) -> Iterator[Problem | ShardRecord]:
    """Read every byte of every shard: yields the problems of a shard, then its record when it has been read. `index` is
    the one that `store` has, if it was read before.

    Checks that the index makes sense and is what its digest names, size and SHA-256 of each tar, that each clip's JPEGs
    lie where the index says and begin and end as JPEGs, that the shard's rows file and the JSON member repeat the row,
    and that the shards on disk are those of the index. Raises UserError if there is no index that can be read.
    """
    index = index or read_index(store)
    yield from _verify_index(index)
    yield from _verify_mapped(store, index)
    known = {f"{record.name}.tar" for record in index.shards}
    for name in sorted(name for name in store.sizes() if name.endswith(".tar") and name not in known):
        yield Problem(name, "", "is not in the index (left by a run that was not finished?)")
    rows_of: dict[str, list[int]] = {}
    for row, shard in enumerate(index.table["shard"].to_pylist()):
        rows_of.setdefault(shard, []).append(row)
    for record in index.shards:
        yield from _verify_shard(store, record, index, rows_of.get(f"{record.name}.tar", []))
        yield record


def _verify_index(index: Index) -> Iterator[Problem]:
    clip_ids = index.table["clip_id"].to_pylist()
    if len(set(clip_ids)) != len(clip_ids):
        yield Problem("", "", f"{len(clip_ids) - len(set(clip_ids))} clips stand in the index twice")
    stored = stored_metadata(index.table.schema)
    digest = content_digest(stored["info"], stored["spec"], index.table, index.shards)
    if digest != index.digest:
        yield Problem("", "", f"the index has been changed: its digest says {index.digest}, its content is {digest}")
    if index.boxes and index.boxes != boxes_digest(index.table):
        yield Problem("", "", "the index has been changed: its boxes are not those that were packed")
    shards = index.table["shard"].to_pylist()
    for row, what in row_faults(index):
        yield Problem(str(shards[row]), str(clip_ids[row]), what)


def _verify_mapped(store: Store, index: Index) -> Iterator[Problem]:
    """Readers take the rows from the memory-mapped copy beside the index, which must be one."""
    if store.local is None or not (store.local / MAPPED).is_file():
        return
    try:
        copy = open_checked(store.local / MAPPED)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, pa.ArrowException):
        return  # made anew when it is needed
    names = [name for name in index.table.column_names if name in copy.table.column_names]
    if copy.digest == index.digest and not all(_equal(copy.table[name], index.table[name]) for name in names):
        yield Problem("", "", f"{MAPPED} differs from {INDEX}: remove it, and it will be made anew")


def _equal(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    """Do two columns hold the same, NaN counting as equal to NaN?"""
    return one.equals(other) or json.dumps(one.to_pylist()) == json.dumps(other.to_pylist())


def _verify_shard(store: Store, record: ShardRecord, index: Index, rows: list[int]) -> Iterator[Problem]:
    tar = f"{record.name}.tar"
    try:
        stored = read_rows(store, record.name)
        if stored is None or stored[0] != record:
            yield Problem(tar, "", f"{record.name}.parquet is missing or differs from the index")
        file = store.open(tar)
    except (OSError, UserError) as error:
        yield Problem(tar, "", f"cannot be read: {error}")
        return
    beside = {row["clip_id"]: row for row in stored[1].to_pylist()} if stored else {}
    with file:
        if difference := check_tar(file, record):
            yield Problem(tar, "", difference)
        is_whole = file.size() == record.num_bytes  # else nothing in it is where the index says
        for row in index.table.take(pa.array(rows, pa.int64())).to_pylist() if rows else []:
            if stored and (what := _difference(row, beside.get(row["clip_id"], {}), but="boxes" * bool(index.boxes))):
                yield Problem(tar, str(row["clip_id"]), f"{what} in {record.name}.parquet")
            if is_whole and row["status"] in USABLE and (what := _check_clip(file, row)):
                yield Problem(tar, str(row["clip_id"]), what)


def _difference(row: dict[str, Any], other: dict[str, Any], but: str = "") -> str:
    """What another record of a clip says differently from its row in the index, `but` for one column; empty if
    nothing."""
    if not other:
        return "it is not"
    names = [name for name in other if name in row and name != but]
    differing = [name for name in names if json.dumps(row[name]) != json.dumps(other[name])]
    return f"its {' and '.join(differing)} in the index {'is' if len(differing) == 1 else 'are'} not as" * bool(
        differing
    )


def _check_clip(file: pa.NativeFile, row: dict[str, Any]) -> str:
    """What is wrong with a clip in its tar, empty if nothing is."""
    sizes, first = row["frame_sizes"] or [], row["first_offset"] or 0
    if first < BLOCK or not sizes or min(size or 0 for size in sizes) < 4:
        return "its row contradicts itself"
    *offsets, end = frame_offsets(first, [*sizes, 0])
    if end > file.size():
        return "its frames lie behind the end of the shard"
    for number, (offset, size) in enumerate(zip(offsets, sizes, strict=True), 1):
        if file.read_at(2, offset) != SOI or file.read_at(2, offset + size - 2) != EOI:
            return f"frame {number} is not where the index says"
    try:
        header = bytes(file.read_at(BLOCK, end - BLOCK))
        member = json.loads(file.read_at(min(int(header[124:135], 8), MOST_JSON), end))
    except (ValueError, RecursionError):
        return "its JSON member is not where the index says"
    if not isinstance(member, dict) or member.get("clip_id") != row["clip_id"]:
        return "its JSON member belongs to another clip"
    what = _difference(row, member)
    return f"{what} in its JSON member" if what else ""


def check_rows(index: Index, shown: str) -> None:
    """Raise UserError for a row that no extraction writes; `shown` names the data set."""
    for row, what in row_faults(index):
        clip_id = index.table["clip_id"][row].as_py()
        raise UserError(f"{shown}: clip {clip_id!r}: {what}; `adafocus verify` lists all that is wrong")


def row_faults(index: Index) -> Iterator[tuple[int, str]]:
    """(row, what is wrong) for rows that no extraction writes; the bytes of frames are not looked at."""
    table, known = index.table, [f"{record.name}.tar" for record in index.shards]
    if not table.num_rows:
        return
    column = {name: _in_one_piece(table[name]) for name in table.column_names}
    usable = _is_one_of(column["status"], USABLE)
    lengths = _lengths(column["frame_sizes"])
    counts, offsets = (column[name].fill_null(-1).to_numpy() for name in ("num_frames", "first_offset"))
    most = min(max((record.num_bytes for record in index.shards), default=0), _MOST_BYTES)
    boxes = column["boxes"].is_valid().to_numpy(zero_copy_only=False)
    classes = np.asarray(column["labels"].values.fill_null(-1))
    wrong_labels = np.concatenate([[0], np.cumsum((classes < 0) | (classes >= index.info.num_classes))])
    bounds = column["labels"].offsets.to_numpy()
    faults = {
        "it has no id": column["clip_id"].is_null().to_numpy(zero_copy_only=False),
        "it is in no split": ~_is_one_of(column["split"], SPLITS),
        "its status is unknown": ~_is_one_of(column["status"], STATUSES),
        "it has no label, or one of no class": (_lengths(column["labels"]) < 1)
        | (wrong_labels[bounds[1:]] > wrong_labels[bounds[:-1]]),
        "its shard is none of the data set's": usable & ~_is_one_of(column["shard"], known),
        "it has no key": usable & column["key"].is_null().to_numpy(zero_copy_only=False),
        "its numbers of frames differ": (counts < 0) | usable & ((lengths < 1) | (lengths != counts)),
        "it has no number of bytes": column["num_bytes"].is_null().to_numpy(zero_copy_only=False),
        "its frames lie before the beginning of the shard": usable & (offsets < BLOCK),
        "its frames lie behind the end of the shard": usable & (offsets >= most),
        "a frame of it has no size": _holds_null(column["frame_sizes"]),
        "a box of it is none": _holds_null(column["boxes"]),
        "it does not say which frames of the clip it has": usable & _wrong_indices(column, lengths),
        "it has not one box for each frame": usable & boxes & (_lengths(column["boxes"]) != lengths),
    }
    for what, rows in faults.items():
        for row in np.flatnonzero(rows):
            yield int(row), what


def _wrong_indices(column: dict[str, pa.Array], lengths: np.ndarray) -> np.ndarray:
    """In which rows the frames that were packed are not given by as many rising numbers, all within the clip."""
    listed, count = column["frame_indices"], column["source_frames"].fill_null(-1).to_numpy()
    if listed.null_count == len(listed):
        return np.asarray(count >= 0)
    numbers, bounds = np.asarray(listed.values.fill_null(-1)), listed.offsets.to_numpy()
    is_listed = listed.is_valid().to_numpy(zero_copy_only=False)
    falls = np.zeros(len(numbers) + 1, bool)
    falls[1:-1] = np.diff(numbers) <= 0
    falls[bounds[:-1][bounds[:-1] < len(numbers)]] = False  # the first of a clip follows none of its own
    bad = falls[: len(numbers)] | (numbers < 0)
    before = np.concatenate([[0], np.cumsum(bad)])
    last = np.full(len(lengths), -1)
    has_some = bounds[1:] > bounds[:-1]
    last[has_some] = numbers[bounds[1:][has_some] - 1]
    wrong = (before[bounds[1:]] > before[bounds[:-1]]) | (_lengths(listed) != lengths) | (last >= count)
    return np.asarray(np.where(is_listed, wrong, count >= 0))


def _holds_null(column: pa.ListArray) -> np.ndarray:
    """In which rows a list holds a null, or a list that holds one."""
    values = column.values
    is_null = np.zeros(len(values), bool)
    if values.null_count:
        is_null |= values.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_fixed_size_list(values.type) and values.values.null_count:
        corners = values.values.is_null().to_numpy(zero_copy_only=False)
        is_null |= corners.reshape(-1, values.type.list_size).any(1)
    if not is_null.any():
        return np.zeros(len(column), bool)
    before, bounds = np.concatenate([[0], np.cumsum(is_null)]), column.offsets.to_numpy()
    return np.asarray(before[bounds[1:]] > before[bounds[:-1]])


def _in_one_piece(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array: as it lies in a memory-mapped file, if it does."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _is_one_of(column: pa.Array, values: Sequence[str]) -> np.ndarray:
    return np.asarray(pc.is_in(column, value_set=pa.array(values, pa.string())))


def _lengths(column: pa.ListArray) -> np.ndarray:
    """Number of values in each list, -1 where it is null."""
    return np.asarray(pc.list_value_length(column).fill_null(-1))
