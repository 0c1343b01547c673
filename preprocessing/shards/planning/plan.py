"""Which clips go into which shard. Goes in: clips and the sizes of their sources; comes out: one plan a shard."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from preprocessing.schema import Clip

SHARD_BYTES = 1_000_000_000
"""Bytes of a shard's frames where nothing else is asked for: what a killed task loses."""
FEW_SHARDS, CLIPS_WHILE_FEW = 256, 64
"""A split for which so many shards are enough has no more clips than that in any, so that small data sets keep many
processors busy."""


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One shard to write: its clips, in the order in which they lie in it."""

    number: int
    split: str
    clips: tuple[Clip, ...]
    num_bytes: int
    """Size of the clips' sources."""
    packed_bytes: float = 0.0
    """About how many bytes its frames will have."""

    @property
    def name(self) -> str:
        """File name without extension."""
        return f"{self.split}-{self.number:06d}"

    @property
    def tar(self) -> str:
        """File name of the frames."""
        return f"{self.name}.tar"

    @property
    def rows(self) -> str:
        """File name of the rows."""
        return f"{self.name}.parquet"


@dataclass(frozen=True, slots=True)
class PackedSize:
    """About how many bytes a clip takes once it is packed, by those of its source."""

    per_source_byte: float = 1.0
    most: float | None = None
    """Of one clip: where no more than some number of its frames is packed."""

    def of(self, source_bytes: np.ndarray) -> np.ndarray:
        """float64 (N,) of sources' sizes (N,), where missing ones have -1."""
        packed = np.maximum(source_bytes, 0) * self.per_source_byte
        return packed if self.most is None else np.minimum(packed, self.most)


def plan_shards(
    clips: Sequence[Clip],
    sizes: Sequence[int],
    clips_per_shard: int | None = None,
    shard_bytes: int | None = None,
    packed: PackedSize | None = None,
    first_number: int = 0,
) -> list[ShardPlan]:
    """Divide the clips of each split among shards of nearly equal bytes, the same way every time.

    `sizes` are those of the clips' sources in bytes, -1 for missing ones; `packed` says what these become. A shard
    holds at most `clips_per_shard` clips, and about `shard_bytes` bytes at most, but for a clip that is larger by
    itself. Without `clips_per_shard` the number of clips limits the shards of a split that needs few of them
    (`FEW_SHARDS`). The largest clip goes to the lightest shard that has room, and so on down. Clips keep their order
    within a shard.
    """
    if clips_per_shard is not None and clips_per_shard < 1:
        raise ValueError(f"clips_per_shard is {clips_per_shard}, has to be at least 1")
    estimate = packed or PackedSize()
    size_N = np.array(sizes, np.int64)
    load_N = estimate.of(size_N)
    loads: list[float] = load_N.tolist()
    by_split: dict[str, list[int]] = {}
    for index, clip in enumerate(clips):
        by_split.setdefault(clip.split, []).append(index)
    plans: list[ShardPlan] = []
    for split, members in by_split.items():
        by_bytes = math.ceil(sum(loads[index] for index in members) / shard_bytes) if shard_bytes else 1
        by_clips = -(-len(members) // (clips_per_shard or CLIPS_WHILE_FEW))
        least = by_clips if clips_per_shard else min(by_clips, FEW_SHARDS)
        num_shards = min(max(by_bytes, least), len(members))
        room = clips_per_shard or (CLIPS_WHILE_FEW if by_clips <= FEW_SHARDS else len(members))
        shards: list[list[int]] = [[] for _ in range(num_shards)]
        lightest = [(0.0, shard) for shard in range(num_shards)]
        rows = np.array(members)
        order = np.lexsort([-size_N[rows], -load_N[rows]])  # by load, then by size, then in their order
        for index in rows[order].tolist():
            load, shard = heapq.heappop(lightest)
            shards[shard].append(index)
            if len(shards[shard]) < room:
                heapq.heappush(lightest, (load + loads[index], shard))
        for shard_clips in shards:
            plans.append(
                ShardPlan(
                    number=first_number + len(plans),
                    split=split,
                    clips=tuple(clips[index] for index in sorted(shard_clips)),
                    num_bytes=int(np.maximum(size_N[shard_clips], 0).sum()),
                    packed_bytes=float(load_N[shard_clips].sum()),
                )
            )
    return plans


def shard_key(number: int, position: int) -> str:
    """Prefix of a clip's members: shard and position, sortable, without dots."""
    return f"{number:06d}_{position:05d}"
