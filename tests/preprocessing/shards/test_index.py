"""The index has a row for every clip, and its metadata are read once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from helpers.packing import finish, start
from preprocessing.files import atomic_write
from preprocessing.schema import METADATA_KEY, UserError
from preprocessing.shards.index import INDEX, read_index, read_metadata
from preprocessing.shards.statistics import summarise
from preprocessing.shards.storage import Store


def test_every_clip_has_a_row_in_the_order_of_the_annotations(finished: Path) -> None:
    index = read_index(Store(finished))
    assert index.table["clip_id"].to_pylist() == [f"videos/clip {number}.mp4" for number in range(12)]
    status = dict(enumerate(index.table["status"].to_pylist()))
    bad = {3: "probe_failed", 5: "probe_failed", 9: "missing"}
    assert status == {number: bad.get(number, "ok") for number in range(12)}
    summary = summarise(index)
    assert (summary["clips"], summary["usable"], summary["failed"], summary["shards"]) == (12, 9, 3, 3)
    assert summary["splits"] == {"train": 8, "val": 4}
    assert summary["num_frames"] == sum(10 + number for number in range(12) if number not in bad)


def test_no_index_and_no_index_of_ours(tmp_path: Path, out: Path) -> None:
    with pytest.raises(UserError, match=r"there is no index.parquet, so no finished data set"):
        read_index(Store(tmp_path / "nowhere"))
    (out / INDEX).write_bytes(b"PAR1 garbage")
    with pytest.raises(UserError, match="cannot be read"):
        read_index(Store(out))


def test_a_rewritten_index_is_noticed(root: Path, out: Path, make_video: Callable[..., Path]) -> None:
    """The metadata is read once per process, and again when the file has changed."""
    before = read_metadata(str(out))
    assert read_metadata(out) is before and before.digest == read_index(Store(out)).digest
    make_video(root / "videos" / "clip 3.mp4", count=13)
    after = finish(*start(root, out, retry_failed=True))
    assert read_metadata(out).digest == after.digest != before.digest
    stat = (out / INDEX).stat()
    metadata = after.table.schema.metadata[METADATA_KEY].replace(after.digest.encode(), b"0123456789abcdef")
    with atomic_write(out / INDEX) as partial:  # as large and as old as before, but another file
        table = after.table.replace_schema_metadata({METADATA_KEY: metadata})
        pq.write_table(table, partial, compression="zstd", row_group_size=16_384)
        os.utime(partial, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (out / INDEX).stat().st_size == stat.st_size
    assert read_metadata(out).digest == "0123456789abcdef"
    (out / INDEX).unlink()
    with pytest.raises(UserError, match="there is no index"):
        read_metadata(out)
