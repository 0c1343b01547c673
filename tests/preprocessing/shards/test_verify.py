"""Every kind of damage to a data set is found."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adafocus.data.clip_table import ClipTable
from preprocessing.schema import INDEX_SCHEMA, METADATA_KEY, UserError
from preprocessing.shards.index import INDEX
from preprocessing.shards.mapped_index import MAPPED
from preprocessing.shards.record import ShardRecord
from preprocessing.shards.storage import Store
from preprocessing.shards.verify import Problem, verify


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda out: (out / "val-000002.tar").unlink(), "val-000002.tar.*cannot be read"),
        (lambda out: (out / "val-000002.parquet").unlink(), "val-000002.parquet is missing"),
        (lambda out: (out / "val-000002.tar").write_bytes(b"x" * 10), "10 bytes, .* recorded"),
        (lambda out: (out / "val-000009.tar").write_bytes(b""), "val-000009.tar.*is not in the index"),
        (lambda out: _flip(out / "val-000002.tar", 600), "its bytes have changed"),
        (lambda out: _flip(out / "val-000002.tar", 513), "frame 1 is not where the index says"),
        (lambda out: edit(out, "labels", 0, [1]), "the index has been changed: its digest says"),
        (lambda out: edit(out, "labels", 0, [1]), "its labels in the index is not as in train-000000.parquet"),
        (lambda out: edit(out, "labels", 0, [1]), "its labels in the index is not as in its JSON member"),
        (lambda out: edit(out, "labels", 0, [2]), "it has no label, or one of no class"),
        (lambda out: edit(out, "labels", 0, [-1]), "it has no label, or one of no class"),
        (lambda out: edit(out, "labels", 0, None), "it has no label, or one of no class"),
        (lambda out: edit(out, "fps", 0, 3.0), "its fps in the index is not as in train-000000.parquet"),
        (lambda out: edit(out, "shard", 0, "/etc/passwd"), "/etc/passwd .*its shard is none of the data set's"),
        (lambda out: edit(out, "shard", 0, "../train-000000.tar"), "its shard is none of the data set's"),
        (lambda out: edit(out, "shard", 0, None), "its shard is none of the data set's"),
        (lambda out: edit(out, "first_offset", 0, -5), "its frames lie before the beginning of the shard"),
        (lambda out: edit(out, "first_offset", 0, 1 << 60), "its frames lie behind the end of the shard"),
        (lambda out: edit(out, "frame_sizes", 0, [-7] * 10), "its row contradicts itself"),
        (lambda out: edit(out, "frame_sizes", 0, [None] * 10), "its row contradicts itself"),
        (lambda out: edit(out, "frame_sizes", 0, []), "its numbers of frames differ"),
        (lambda out: edit(out, "num_frames", 0, None), "its numbers of frames differ"),
        (lambda out: edit(out, "status", 0, "great"), "its status is unknown"),
        (lambda out: edit(out, "split", 0, None), "it is in no split"),
        (lambda out: edit(out, "clip_id", 0, None), "it has no id"),
        (lambda out: edit(out, "boxes", 0, [[0.0, 0.0, 1.0, 1.0]]), "it has not one box for each frame"),
        (lambda out: edit(out, "boxes", 0, [[0.0, None, 1.0, 1.0]] * 10), "a box of it is none"),
        (lambda out: edit(out, "frame_sizes", 0, [None] * 10), "a frame of it has no size"),
        (lambda out: edit(out, "frame_indices", 0, [0, 2, 1]), "it does not say which frames of the clip it has"),
        (lambda out: edit(out, "frame_indices", 0, list(range(10))), "it does not say which frames of the clip it has"),
        (lambda out: edit(out, "source_frames", 0, 12), "it does not say which frames of the clip it has"),
        (lambda out: edit(out, "labels", 0, [1], keep_mapped=False), "index.arrow differs from index.parquet"),
        (lambda out: rename_shard(out, "../x"), "leads out of that folder"),
    ],
)
def test_verify_finds(out: Path, damage: Callable[[Path], None], problem: str) -> None:
    store = Store(out)
    assert not [item for item in verify(store) if isinstance(item, Problem)]
    damage(out)
    found = [f"{item.shard} {item.clip_id} {item.what}" for item in verify(store) if isinstance(item, Problem)]
    assert any(re.search(problem, line) for line in found), found


@pytest.mark.parametrize(
    ("damage", "refusal"),
    [
        (lambda out: edit(out, "frame_sizes", 0, [None] * 10), "a frame of it has no size; `adafocus verify`"),
        (lambda out: edit(out, "boxes", 0, [[0.0, None, 1.0, 1.0]] * 10), "a box of it is none; `adafocus verify`"),
        (lambda out: edit(out, "first_offset", 0, 1 << 60), "behind the end of the shard; `adafocus verify`"),
        (lambda out: edit(out, "num_bytes", 0, None), "it has no number of bytes; `adafocus verify`"),
        (lambda out: pq.write_table(pq.read_table(out / INDEX)[:0], out / INDEX), "has no clips in its index"),
    ],
)
def test_a_loader_refuses_such_an_index(out: Path, damage: Callable[[Path], None], refusal: str) -> None:
    damage(out)
    (out / MAPPED).unlink(missing_ok=True)
    with pytest.raises(UserError, match=refusal):
        ClipTable(out, "train")


def edit(out: Path, column: str, row: int, value: object, *, keep_mapped: bool = True) -> None:
    """Change one value of the index, and nothing else."""
    table = pq.read_table(out / INDEX)
    values = table[column].to_pylist()
    values[row] = value
    at = table.column_names.index(column)
    metadata = table.schema.metadata
    table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
    pq.write_table(table.replace_schema_metadata(metadata), out / INDEX)
    if keep_mapped:
        (out / MAPPED).unlink(missing_ok=True)


def rename_shard(out: Path, name: str) -> None:
    """Let the index say that a shard has another name."""
    table = pq.read_table(out / INDEX)
    metadata = json.loads(table.schema.metadata[METADATA_KEY])
    metadata["shards"][0]["name"] = name
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata)}), out / INDEX)


@given(st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_verify_survives_any_index(finished: Path, tmp_path: Path, data: st.DataObject) -> None:
    out = tmp_path / uuid.uuid4().hex
    shutil.copytree(finished, out)
    column = data.draw(st.sampled_from(INDEX_SCHEMA.names))
    number = st.none() | st.integers(-(2**31), 2**31 - 1)
    values: dict[pa.DataType, st.SearchStrategy] = {
        pa.string(): st.none() | st.text(max_size=8),
        pa.int32(): number,
        pa.int64(): st.none() | st.integers(-(2**63), 2**63 - 1),
        pa.float64(): st.none() | st.floats(),
        pa.bool_(): st.none() | st.booleans(),
        pa.list_(pa.int32()): st.none() | st.lists(number, max_size=12),
        pa.list_(pa.list_(pa.float32(), 4)): st.none() | st.just([[0.0] * 4] * 3),
    }
    one = values[INDEX_SCHEMA.field(column).type]
    edit(out, column, 0, data.draw(one))
    assert all(isinstance(item, Problem | ShardRecord) for item in verify(Store(out)))
    shutil.rmtree(out)


@pytest.mark.parametrize(
    "change",
    [
        lambda metadata: metadata["info"].update(class_names=7),
        lambda metadata: metadata["info"].update(metric="luck"),
        lambda metadata: metadata["spec"].update(height="tall"),
        lambda metadata: metadata.update(shards=[{"name": 3}]),
        lambda metadata: metadata.update(shards=None),
        lambda metadata: metadata.pop("digest"),
        lambda metadata: metadata.update(digest="../../x"),
        lambda metadata: metadata.update(versions=3),
        lambda metadata: metadata["info"]["class_names"].__setitem__(0, "\x1b[31m"),
    ],
)
def test_metadata_of_other_types_is_no_index(out: Path, change: Callable[[dict], object]) -> None:
    table = pq.read_table(out / INDEX)
    metadata = json.loads(table.schema.metadata[METADATA_KEY])
    change(metadata)
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata)}), out / INDEX)
    with pytest.raises(UserError, match="is not an index of this program"):
        list(verify(Store(out)))


def test_columns_of_other_types_are_no_index(out: Path) -> None:
    table = pq.read_table(out / INDEX)
    pq.write_table(table.set_column(2, "labels", pa.array(["x"] * len(table))), out / INDEX)
    with pytest.raises(UserError, match=r"index\.parquet"):
        list(verify(Store(out)))


def _flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)
