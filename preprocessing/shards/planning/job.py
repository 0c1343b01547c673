"""What is to be extracted, from where, where to, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from preprocessing.clips import clips_digest
from preprocessing.media.extraction import DEFAULT_LIMITS, Limits
from preprocessing.schema import Clip, DatasetInfo, ExtractionSpec
from preprocessing.shards.far_root import FarRoot
from preprocessing.shards.planning.plan import SHARD_BYTES
from preprocessing.shards.storage import Store
from preprocessing.sources import resolve_source


@dataclass(frozen=True, slots=True)
class Job:
    """The settings of one extraction, the same for all its shards. Small and picklable: every task gets a copy."""

    store: Store
    """Where the shards go."""
    root: Path
    """Folder of the videos and annotations."""
    info: DatasetInfo
    spec: ExtractionSpec
    clips_per_shard: int | None = None
    """None: by bytes alone."""
    shard_bytes: int | None = None
    """About how many bytes of frames a shard holds at most; None: no limit but the number of clips."""
    limits: Limits = DEFAULT_LIMITS
    drop_damaged: bool = False
    """Leave out clips whose decoder reports errors."""
    far: FarRoot | None = None
    """Where the videos really lie, if `root` is a mirror of it."""

    def source(self, clip: Clip, first: int | None = None) -> AbstractContextManager[Path]:
        """Path of a clip's source while the `with` block lasts; whether it is there is another question. Of a large
        file that is far away only the `first` bytes and its end are there, None: all. Raises ValueError if it does not
        stay below the data root."""
        if self.far is not None:
            return self.far.fetched(clip.source, clip.source_kind == "frames", first)
        return nullcontext(resolve_source(self.root, clip.source))

    def identity(self, clips: Sequence[Clip]) -> dict[str, Any]:
        """Everything that decides the content of the shards, as plan.json keeps it."""
        return {
            "dataset": self.info.name,
            "annotations": self.info.annotations,
            "clips": clips_digest(clips),
            "num_clips": len(clips),
            "clips_per_shard": self.clips_per_shard,
            **({} if self.shard_bytes is None else {"shard_bytes": self.shard_bytes}),
            "drop_damaged": self.drop_damaged,
            **self.spec.to_dict(),
        }

    def planned(self, before: Mapping[str, Any] | None) -> Job:
        """The same with a limit of shards' sizes: the one that was asked for, else that of the identity with which the
        folder was started `before`, else of bytes."""
        if self.clips_per_shard is not None or self.shard_bytes is not None:
            return self
        if before is None:
            return replace(self, shard_bytes=SHARD_BYTES)
        return replace(self, clips_per_shard=before.get("clips_per_shard"), shard_bytes=before.get("shard_bytes"))
