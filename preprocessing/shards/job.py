"""What is to be extracted, from where, where to, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preprocessing.clips import clips_digest
from preprocessing.media.extraction import DEFAULT_LIMITS, Limits
from preprocessing.schema import Clip, DatasetInfo, ExtractionSpec
from preprocessing.shards.storage import Store


@dataclass(frozen=True, slots=True)
class Job:
    """The settings of one extraction, the same for all its shards. Small and picklable: every task gets a copy."""

    store: Store
    """Where the shards go."""
    root: Path
    """Folder of the videos and annotations."""
    info: DatasetInfo
    spec: ExtractionSpec
    clips_per_shard: int = 64
    limits: Limits = DEFAULT_LIMITS
    drop_damaged: bool = False
    """Leave out clips whose decoder reports errors."""

    def identity(self, clips: Sequence[Clip]) -> dict[str, Any]:
        """Everything that decides the content of the shards, as plan.json keeps it."""
        return {
            "dataset": self.info.name,
            "annotations": self.info.annotations,
            "clips": clips_digest(clips),
            "num_clips": len(clips),
            "clips_per_shard": self.clips_per_shard,
            "drop_damaged": self.drop_damaged,
            **self.spec.to_dict(),
        }
