"""The loader that training reads its clips with, as the setting `data.reader` says."""

from __future__ import annotations

from adafocus.config.schema import DataConfig
from adafocus.data.loader import ClipLoader
from adafocus.data.stream import ClipStream

TrainingLoader = ClipLoader | ClipStream


def training_loader(
    shards: str,
    data: DataConfig,
    *,
    batch_size: int,
    accumulate: int,
    seed: int,
    rank: int,
    world_size: int,
    num_workers: int,
) -> TrainingLoader:
    """The training split's loader: see `ClipLoader`."""
    kind: type[TrainingLoader] = ClipStream if data.reader == "stream" else ClipLoader
    return kind(
        shards,
        "train",
        data,
        batch_size=batch_size,
        train=True,
        seed=seed,
        rank=rank,
        world_size=world_size,
        accumulate=accumulate,
        num_workers=num_workers,
    )
