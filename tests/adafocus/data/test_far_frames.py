"""Shards on object storage: the same frames, in few requests, and lost requests are made again."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adafocus.config.schema import Config
from adafocus.data import far_frames
from adafocus.data.clip_table import ClipTable, ShardError
from adafocus.data.far_frames import FramePlace, joined
from adafocus.data.loader import ClipLoader
from helpers.s3_server import s3_server, s3_url
from helpers.slow_proxy import SlowProxy
from preprocessing.shards.storage import Store


@pytest.fixture(scope="module")
def proxy() -> Iterator[SlowProxy]:
    with s3_server() as (host, port), SlowProxy(host, port) as far:
        yield far


@pytest.fixture(scope="module")
def url(proxy: SlowProxy, synthetic_shards: str) -> str:
    """The small synthetic data set on the server."""
    store = Store(s3_url(proxy.address, "data"))
    for path in Path(synthetic_shards).iterdir():
        if path.suffix in (".tar", ".parquet"):
            store.write(path.read_bytes(), path.name)
    return store.url


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 300)), min_size=1, max_size=40))
def test_frames_that_lie_close_together_are_one_request(gaps: list[tuple[int, int]]) -> None:
    places, end = [], 0
    for gap, size in gaps:
        places.append(FramePlace(end + gap, size))
        end += gap + size
    runs = list(joined(places, gap=100, most=1000))
    assert [place for run in runs for place in run] == places
    for run in runs:
        assert run[-1].offset + run[-1].size - run[0].offset <= 1000
        assert all(b.offset - a.offset - a.size <= 100 for a, b in pairwise(run))
    for before, after in pairwise(runs):
        apart = after[0].offset - before[-1].offset - before[-1].size > 100
        assert apart or after[0].offset + after[0].size - before[0].offset > 1000


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_the_same_near_and_far(
    num_workers: int, url: str, synthetic_shards: str, tiny_config: Config
) -> None:
    options = {"batch_size": 8, "train": True, "num_workers": num_workers}
    for near, far in zip(
        ClipLoader(synthetic_shards, "train", tiny_config.data, **options),
        ClipLoader(url, "train", tiny_config.data, **options),
        strict=True,
    ):
        assert near.clip_ids == far.clip_ids and torch.equal(near.glance_BTCHW, far.glance_BTCHW)


def test_a_clip_takes_a_request_or_two(url: str, proxy: SlowProxy) -> None:
    table = ClipTable(url, "train")
    table = pickle.loads(pickle.dumps(table))
    wanted = [(number, np.array([0, 2, 5, 7])) for number in range(12)]
    before = proxy.requests
    read = table.read_clips(wanted)
    shards = {shard for shard in table.places()[0][:12]}
    assert len(read) == 12 and all(len(jpegs) == 4 for jpegs in read)
    assert proxy.requests - before <= 12 + far_frames.SIDE_BY_SIDE * len(shards)  # threads may open a shard at once
    before = proxy.requests
    table.read_clips(wanted)
    assert proxy.requests - before == 12


def test_a_lost_request_is_made_again(url: str, proxy: SlowProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far_frames, "WAITS_S", (0.01, 0.01))
    table, frames = ClipTable(url, "train"), np.array([0, 3])
    whole = table.read(0, frames)
    proxy.to_lose = 5
    assert all(np.array_equal(one, other) for one, other in zip(table.read(0, frames), whole, strict=True))
    assert not proxy.to_lose
    proxy.to_lose = 10_000
    with pytest.raises(ShardError, match=r"train-.*, clip '.*': .*run `adafocus verify s3://"):
        table.read(0, frames)
    proxy.to_lose = 0


def test_a_shard_that_is_cut_or_gone_is_named(url: str, proxy: SlowProxy, synthetic_shards: str) -> None:
    far = Store(s3_url(proxy.address, "cut"))
    for path in Path(synthetic_shards).iterdir():
        if path.suffix == ".parquet" or (path.suffix == ".tar" and path.name.startswith("val")):
            far.write(path.read_bytes()[: 20_000 if path.suffix == ".tar" else None], path.name)
    with pytest.raises(ShardError, match=r"^val-.*: the shard ends before byte \d+: run"):
        table = ClipTable(far.url, "val")
        table.read_clips([(number, np.arange(8)) for number in range(len(table))])
    with pytest.raises(ShardError, match=r"^train-.*: the shard is gone: run"):
        ClipTable(far.url, "train").read(0, np.array([0]))
