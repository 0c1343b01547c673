"""The memory-mapped copy follows the index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from helpers.packing import finish, start
from preprocessing.shards.index import read_index
from preprocessing.shards.mapped_index import MAPPED, map_index
from preprocessing.shards.storage import Store


def test_mapped_index_follows_the_index(root: Path, out: Path, make_video: Callable[..., Path]) -> None:
    store = Store(out)
    index, path = map_index(store)
    assert path == out / MAPPED
    assert index.table.equals(read_index(store).table)
    written = path.stat().st_mtime_ns
    assert map_index(store)[1].stat().st_mtime_ns == written
    stale = path.read_bytes()
    make_video(root / "videos" / "clip 3.mp4", count=13)
    finish(*start(root, out, retry_failed=True))
    path.write_bytes(stale)
    assert map_index(store)[0].digest == read_index(store).digest != index.digest
    path.write_bytes(b"broken")
    assert map_index(store)[0].digest == read_index(store).digest
