"""The seed of a training step: a run that was stopped goes on with the random numbers that it would have had."""

from __future__ import annotations

import zlib

import torch

from adafocus import distributed


def seed_step(seed: int, stage: str, epoch: int, step: int, draws: torch.Generator | None = None) -> None:
    """Seed torch's generators for one step on this rank (dropout), and `draws` alike on all ranks."""
    name = f"{seed}/{stage}/{epoch}/{step}"
    torch.manual_seed(zlib.crc32(f"{name}/{distributed.rank()}".encode()))
    if draws:
        draws.manual_seed(zlib.crc32(name.encode()))
