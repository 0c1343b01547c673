"""Which clips go into which shard. Goes in: clips and the sizes of their sources; comes out: one plan a shard."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from preprocessing.schema import Clip


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One shard to write: its clips, in the order in which they lie in it."""

    number: int
    split: str
    clips: tuple[Clip, ...]
    num_bytes: int
    """Size of the clips' sources: shards are planned to have nearly equal ones."""

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


def plan_shards(
    clips: Sequence[Clip], sizes: Sequence[int], clips_per_shard: int, first_number: int = 0
) -> list[ShardPlan]:
    """Divide clips among shards: per split ceil(n / clips_per_shard) shards of nearly equal bytes, the same every time.

    `sizes` are those of the clips' sources in bytes, -1 for missing ones. The largest clip goes to the lightest shard
    that has room, and so on down. Clips keep their order within a shard.
    """
    if clips_per_shard < 1:
        raise ValueError(f"clips_per_shard is {clips_per_shard}, has to be at least 1")
    plans: list[ShardPlan] = []
    for split in dict.fromkeys(clip.split for clip in clips):
        members = [index for index, clip in enumerate(clips) if clip.split == split]
        num_shards = -(-len(members) // clips_per_shard)
        shards: list[list[int]] = [[] for _ in range(num_shards)]
        lightest = [(0, shard) for shard in range(num_shards)]
        for index in sorted(members, key=lambda member: (-sizes[member], member)):
            load, shard = heapq.heappop(lightest)
            shards[shard].append(index)
            if len(shards[shard]) < clips_per_shard:
                heapq.heappush(lightest, (load + max(sizes[index], 0), shard))
        for shard_clips in shards:
            plans.append(
                ShardPlan(
                    number=first_number + len(plans),
                    split=split,
                    clips=tuple(clips[index] for index in sorted(shard_clips)),
                    num_bytes=sum(max(sizes[index], 0) for index in shard_clips),
                )
            )
    return plans


def shard_key(number: int, position: int) -> str:
    """Prefix of a clip's members: shard and position, sortable, without dots."""
    return f"{number:06d}_{position:05d}"
