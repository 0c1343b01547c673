"""Batches of clips from shards read from front to back, for storage without cheap random access (objects, disks).

Goes in: the same data set as ClipLoader's; comes out: the same clips in batches, in another order. Shards are read
with stock `webdataset`; of each clip only the sampled frames are kept, and decoded after the shuffle buffer. A clip
looks the same as ClipLoader makes it in the same epoch.
"""

from __future__ import annotations

import random
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from adafocus.config.schema import DataConfig
from adafocus.config.validation import check_data
from adafocus.data.batches import Batch, ClipMaker, Sent, batches_or_error, start_worker
from adafocus.data.clip_table import ClipTable, ShardError, training_part
from adafocus.data.socket_folder import prepare_socket_folder
from preprocessing.schema import DatasetInfo, ExtractionSpec, UserError


class ClipStream:
    """Iterable over an epoch's batches of this rank, by reading whole shards.

    Readers (ranks times workers) share the shards. With fewer shards than readers several read the same shard and each
    takes its part of the clips: that works, but reads more than once, so more shards are better
    (`--shard-bytes`). In training every rank yields the same number of batches: one that runs out of clips goes
    round again. In evaluation every clip comes exactly once.
    """

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
        buffer: int = 256,
    ) -> None:
        """As ClipLoader; `buffer` is the number of clips among which training shuffles. Raises UserError too."""
        check_data(data)
        table = ClipTable(shards, split, part=training_part(data.held_out) if train else None)
        if len(table) < world_size * max(num_workers, 1):
            raise UserError(
                f"{world_size} ranks with {max(num_workers, 1)} workers cannot share {len(table)} clips; use fewer"
            )
        self.info: DatasetInfo = table.info
        self.digest: str = table.digest
        self.spec: ExtractionSpec = table.spec
        self.clip_ids: Sequence[str] = table.clip_ids
        self.class_shares: Callable[[], np.ndarray] = table.class_shares
        self.batch_size, self.train, self.accumulate = batch_size, train, accumulate
        self.global_clips = batch_size * world_size * accumulate
        """Clips of a global batch."""
        self._start = 0
        if num_workers:
            prepare_socket_folder()
        maker = ClipMaker(table, data, seed, train)
        self._dataset = _Shards(maker, batch_size, train, seed, rank, world_size, buffer)
        self._loader: DataLoader[Sent] = DataLoader(
            self._dataset,
            batch_size=None,
            num_workers=num_workers,
            worker_init_fn=start_worker,
            pin_memory=torch.cuda.is_available(),
        )

    def __len__(self) -> int:
        """Batches that every rank yields in a training epoch."""
        if not self.train:
            raise TypeError("an evaluation stream ends when its shards do; it has no length")
        return max(len(self.clip_ids) // self.global_clips, 1) * self.accumulate

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration, from its first batch on."""
        self._dataset.epoch, self._start = epoch, 0

    def skip(self, num_batches: int) -> None:
        """Let the next iteration begin after so many batches, which are read all the same: to go on inside an epoch."""
        if not 0 <= num_batches <= len(self):
            raise ValueError(f"cannot skip {num_batches} of {len(self)} batches")
        self._start = num_batches

    def __iter__(self) -> Iterator[Batch]:
        """Batches. Raises ShardError where a shard is not as the index says."""
        batches = batches_or_error(self._loader)
        start, self._start = self._start, 0
        return islice(batches, start, len(self)) if self.train else batches


class _Shards(IterableDataset[Sent]):
    """What one reader does."""

    def __init__(
        self, maker: ClipMaker, batch_size: int, train: bool, seed: int, rank: int, world_size: int, buffer: int
    ) -> None:
        self._maker, self._batch_size, self._train, self._seed = maker, batch_size, train, seed
        self._rank, self._world_size, self._buffer = rank, world_size, buffer
        self.epoch = 0
        shards, keys = maker.table.places()
        self._number = {key: number for number, key in enumerate(keys)}
        self._members: dict[str, list[int]] = {}
        for number, shard in enumerate(shards):
            self._members.setdefault(shard, []).append(number)

    def __iter__(self) -> Iterator[Sent]:
        worker = get_worker_info()
        readers, reader = self._world_size, self._rank
        if worker is not None:
            readers, reader = readers * worker.num_workers, reader * worker.num_workers + worker.id
        rng = random.Random(repr((self._seed, self.epoch, reader)))
        clips = self._clips(reader, readers, rng)
        try:
            while batch := list(islice(clips, self._batch_size)):
                yield self._maker.send(self.epoch, batch)
        except ShardError as error:
            yield error  # raised in a worker it would come back with its trace as its message

    def _clips(self, reader: int, readers: int, rng: random.Random) -> Iterator[tuple[int, list[np.ndarray]]]:
        import webdataset as wds
        from webdataset.tariterators import group_by_keys, tar_file_expander

        shards = sorted(self._members)
        if self._train:
            random.Random(repr((self._seed, self.epoch))).shuffle(shards)  # the same for all readers
        # With fewer shards than readers `share` of them read one shard, and each takes every share-th clip.
        own = shards[reader::readers] or [shards[reader % len(shards)]]
        share = len(range(reader % len(shards), readers, len(shards))) if readers > len(shards) else 1
        part = reader // len(shards) if readers > len(shards) else 0
        sampled = {
            number: self._maker.frames(self.epoch, number)
            for shard in own
            for number in self._members[shard][part::share]
        }
        stages: list[Any] = [
            partial(self._open, own),
            partial(tar_file_expander, select_files=partial(self._is_wanted, sampled)),
            group_by_keys,
        ]
        if self._train:
            stages.append(wds.shuffle(self._buffer, initial=self._buffer, rng=rng))
        while True:
            count = 0
            try:
                for sample in wds.DataPipeline(*stages):
                    number = self._number[sample["__key__"]]
                    jpegs = [sample[f"{frame + 1:06d}.jpg"] for frame in sampled[number]]
                    yield number, [np.frombuffer(bytearray(jpeg), np.uint8) for jpeg in jpegs]
                    count += 1
            except (tarfile.TarError, KeyError, OSError) as error:
                raise self._error(own, f"cannot be read ({error})") from error
            if count != len(sampled):  # a tar cut at a member's end reads like a shorter one
                raise self._error(own, f"lack {len(sampled) - count} clips")
            if not self._train:
                return

    def _error(self, shards: list[str], what: str) -> ShardError:
        return ShardError(f"{', '.join(shards)}: {what}: run `adafocus verify {self._maker.table.store.shown}`")

    def _open(self, shards: list[str]) -> Iterator[dict[str, Any]]:
        for shard in shards:
            with self._maker.table.store.open_stream(shard) as stream:
                yield {"url": shard, "stream": stream}

    def _is_wanted(self, sampled: dict[int, np.ndarray], name: str) -> bool:
        key, _, rest = name.partition(".")
        frames = sampled.get(self._number.get(key, -1))
        if frames is None or not re.fullmatch(r"[0-9]{6}\.jpg", rest):
            return False
        frame = int(rest[:6]) - 1
        at = int(np.searchsorted(frames, frame))
        return at < len(frames) and int(frames[at]) == frame
