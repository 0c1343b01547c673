"""Batches of clips from shards, by random access. Goes in: a finished data set; comes out: uint8 frames and labels.

Letters: B clips, T frames, C colours, H W pixels (H = W = `data.crop`), L labels.

What a clip looks like in an epoch depends on (seed, epoch, clip) alone, and the global batches on (seed, epoch) and the
global batch size: not on the number of workers, nor on how many ranks share a global batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from adafocus.config.schema import DataConfig
from adafocus.config.validation import check_data
from adafocus.data.batches import Batch, ClipMaker, Sent, batches_or_error, evaluation_clip, start_worker
from adafocus.data.clip_table import ClipTable, ShardError, is_held_out, training_part
from adafocus.data.socket_folder import prepare_socket_folder
from preprocessing.schema import DatasetInfo, ExtractionSpec, UserError

__all__ = ["Batch", "ClipLoader", "evaluation_clip"]


class ClipLoader:
    """Iterable over an epoch's batches of this rank."""

    def __init__(
        self,
        shards: str | Path,
        split: str,
        data: DataConfig,
        *,
        batch_size: int,
        train: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        num_workers: int = 0,
        limit: int | None = None,
        held_out: bool = False,
    ) -> None:
        """`batch_size` is in clips of one rank: a global batch holds batch_size * world_size * accumulate clips, in
        `accumulate` micro-batches, which are what a rank reads.

        In training the global batches are drawn anew each epoch and the incomplete last one is left out, unless it is
        the only one. In evaluation rank r takes the clips range(r, N, world_size), nothing dropped, nothing twice.
        `held_out` means only the clips that training leaves out. `num_workers` processes decode ahead; 0 decodes in
        this process. Raises UserError if there is no finished data set, the split is empty or smaller than a global
        batch has micro-batches, or settings do not fit together.
        """
        check_data(data)
        share = data.held_out
        part = partial(is_held_out, share=share) if held_out else training_part(share) if train else None
        table = ClipTable(shards, split, limit, part)
        if train and len(table) < world_size * accumulate:
            raise UserError(
                f"{world_size} workers cannot share the {len(table)} clips of split {split!r} with accumulate="
                f"{accumulate}: each micro-batch of each worker needs one; lower accumulate, or take fewer workers"
            )
        self.info: DatasetInfo = table.info
        self.digest: str = table.digest
        self.spec: ExtractionSpec = table.spec
        self.clip_ids: Sequence[str] = table.clip_ids
        """Of all ranks, in the order of the index."""
        self.class_shares: Callable[[], np.ndarray] = table.class_shares
        self.batch_size = batch_size
        if num_workers:
            prepare_socket_folder()
        self._order = _Order(len(table), batch_size, train, seed, rank, world_size, accumulate, num_workers)
        self._loader: DataLoader[Sent] = DataLoader(
            _Batches(ClipMaker(table, data, seed, train)),
            batch_size=None,
            sampler=self._order,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=start_worker,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # else each iteration takes a number from the one that dropout draws from
        )

    def __len__(self) -> int:
        """Batches of a whole epoch, of this rank."""
        return len(self._order)

    @property
    def global_clips(self) -> int:
        """Clips of a global batch in training: fewer than asked for if the split has no more."""
        return min(self._order.whole, self._order.num_clips)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches the next iteration yields, from its first batch on."""
        self._order.epoch, self._order.start = epoch, 0

    def skip(self, num_batches: int) -> None:
        """Let the next iteration begin after so many batches, without reading them: to go on inside an epoch."""
        if not 0 <= num_batches <= len(self):
            raise ValueError(f"cannot skip {num_batches} of {len(self)} batches")
        self._order.start = num_batches

    def __iter__(self) -> Iterator[Batch]:
        """Batches. Raises ShardError where a shard is not as the index says."""
        yield from batches_or_error(self._loader)
        self._order.start = 0


@dataclass
class _Order:
    """Which clips make which batch; iterated over, the epoch and clip numbers of each batch still to come, and whether
    its worker makes no more of them in this epoch.

    A thing of its own, for a loader that its sampler knew would be part of a cycle, and workers that are stopped by
    the garbage collector take ten seconds to stop.
    """

    num_clips: int
    batch_size: int
    train: bool
    seed: int
    rank: int
    world_size: int
    accumulate: int
    num_workers: int
    epoch: int = 0
    start: int = 0

    @property
    def whole(self) -> int:
        """Clips of a complete global batch."""
        return self.batch_size * self.world_size * self.accumulate

    def __len__(self) -> int:
        if self.train:
            return max(self.num_clips // self.whole, 1) * self.accumulate
        return -(-len(range(self.rank, self.num_clips, self.world_size)) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray, bool]]:
        batches = self.batches()
        for at in range(self.start, len(batches)):
            yield self.epoch, batches[at], at + self.num_workers >= len(batches)  # workers take turns

    def batches(self) -> list[np.ndarray]:
        """Numbers of the clips in each of this rank's batches, in order."""
        count, size = self.num_clips, self.batch_size
        if not self.train:
            share = np.arange(self.rank, count, self.world_size)
            return [share[start : start + size] for start in range(0, len(share), size)]
        order = np.random.default_rng((self.seed, self.epoch)).permutation(count)
        if count < self.whole:
            return np.array_split(order, self.world_size * self.accumulate)[self.rank :: self.world_size]
        starts = range(self.rank * size, count // self.whole * self.whole, size * self.world_size)
        return [order[start : start + size] for start in starts]


class _Batches(Dataset[Sent]):
    """The work of one worker: read, decode, crop."""

    def __init__(self, maker: ClipMaker) -> None:
        self._maker = maker

    def __getitem__(self, request: tuple[int, np.ndarray, bool]) -> Sent:
        epoch, numbers, last = request
        maker, table = self._maker, self._maker.table
        try:
            wanted = [(number, maker.frames(epoch, number)) for number in map(int, numbers)]
            clips = zip([number for number, _ in wanted], table.read_clips(wanted), strict=True)
            return maker.send(epoch, list(clips), last=last)
        except ShardError as error:
            return error  # raised in a worker it would come back with its trace as its message
