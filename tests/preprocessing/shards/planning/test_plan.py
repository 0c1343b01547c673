"""Plans of shards are complete, balanced and always the same."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.schema import Clip
from preprocessing.shards.planning.plan import CLIPS_WHILE_FEW, FEW_SHARDS, PackedSize, plan_shards


def clip(clip_id: str, split: str = "train", **more: object) -> Clip:
    return Clip("folder", split, clip_id, str(more.pop("source", clip_id)), (0,), **more)


@given(
    st.lists(st.tuples(st.sampled_from(["train", "val"]), st.integers(-1, 10**9)), min_size=1, max_size=80),
    st.integers(1, 10),
)
def test_plans_hold_every_clip_once_in_full_shards_of_like_size(sizes: list[tuple[str, int]], per_shard: int) -> None:
    clips = [clip(str(number), split) for number, (split, _) in enumerate(sizes)]
    weights = [size for _, size in sizes]
    plans = plan_shards(clips, weights, per_shard)
    assert plans == plan_shards(clips, weights, per_shard)
    assert sorted(item.clip_id for plan in plans for item in plan.clips) == sorted(item.clip_id for item in clips)
    assert [plan.number for plan in plans] == list(range(len(plans)))
    for split in ("train", "val"):
        members = [plan for plan in plans if plan.split == split]
        count = sum(item.split == split for item in clips)
        assert len(members) == -(-count // per_shard)
        assert all(len(plan.clips) <= per_shard for plan in members)
        assert all({item.split for item in plan.clips} == {split} for plan in members)
    for plan in plans:
        order = [int(item.clip_id) for item in plan.clips]
        assert order == sorted(order)
        assert plan.num_bytes == sum(max(weights[number], 0) for number in order)


def test_plans_balance_bytes() -> None:
    rng = np.random.default_rng(0)
    sizes = (rng.lognormal(0, 1.5, 640) * 1e6).astype(int).tolist()
    loads = [plan.num_bytes for plan in plan_shards([clip(str(i)) for i in range(640)], sizes, 64)]
    assert len(loads) == 10
    assert max(loads) / min(loads) < 1.1


@given(st.lists(st.integers(-1, 10**9), min_size=1, max_size=200), st.integers(10**8, 10**10), st.floats(0.1, 50))
def test_shards_hold_about_as_many_bytes_as_are_asked_for(sizes: list[int], limit: int, growth: float) -> None:
    clips = [clip(str(number)) for number in range(len(sizes))]
    packed = PackedSize(growth)
    plans = plan_shards(clips, sizes, shard_bytes=limit, packed=packed)
    assert sorted(item.clip_id for plan in plans for item in plan.clips) == sorted(item.clip_id for item in clips)
    loads = [packed.of(np.array([sizes[int(item.clip_id)] for item in plan.clips])).sum() for plan in plans]
    largest = packed.of(np.array(sizes)).max()
    assert max(loads) <= limit + largest
    assert max(len(plan.clips) for plan in plans) <= CLIPS_WHILE_FEW
    few = -(-len(clips) // CLIPS_WHILE_FEW)
    assert len(plans) <= max(sum(loads) / limit + 1, few)


def test_many_small_clips_share_a_shard() -> None:
    count = 2 * CLIPS_WHILE_FEW * FEW_SHARDS
    plans = plan_shards([clip(str(number)) for number in range(count)], [100_000] * count, shard_bytes=10**9)
    assert len(plans) == FEW_SHARDS and {len(plan.clips) for plan in plans} == {2 * CLIPS_WHILE_FEW}


def test_clips_of_which_a_part_is_packed_weigh_alike() -> None:
    sizes = [10**6, 10**9, 10**9, 10**9]
    plans = plan_shards(
        [clip(str(number)) for number in range(4)], sizes, shard_bytes=10**7, packed=PackedSize(5, 10**7)
    )
    assert sorted(len(plan.clips) for plan in plans) == [1, 1, 1, 1]
    alike = plan_shards([clip(str(n)) for n in range(4)], sizes, shard_bytes=2 * 10**7, packed=PackedSize(50, 10**7))
    assert sorted(len(plan.clips) for plan in alike) == [2, 2]
