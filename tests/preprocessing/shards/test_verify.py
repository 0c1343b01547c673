"""Every kind of damage to a data set is found."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

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
    ],
)
def test_verify_finds(out: Path, damage: Callable[[Path], None], problem: str) -> None:
    store = Store(out)
    assert not [item for item in verify(store) if isinstance(item, Problem)]
    damage(out)
    found = [f"{item.shard} {item.clip_id} {item.what}" for item in verify(store) if isinstance(item, Problem)]
    assert any(re.search(problem, line) for line in found), found


def _flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)
