"""The memory-mapped copy follows the index."""

from __future__ import annotations

import random
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


def test_a_copy_with_other_bytes_is_made_anew_or_read_within_its_bounds(out: Path) -> None:
    """Wherever one byte of the file is another."""
    store = Store(out)
    whole = map_index(store)[1].read_bytes()
    for place in random.Random(0).sample(range(len(whole)), 60):
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        (out / MAPPED).write_bytes(changed)
        map_index(store)[0].table.to_pylist()
