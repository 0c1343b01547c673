"""Batches of clips from shards, by random access. Goes in: a finished data set; comes out: uint8 frames and labels.

Letters: B clips, T frames, C colours, H W pixels (H = W = `data.crop`), L labels.

What a clip looks like in an epoch depends on (seed, epoch, clip) alone, and the global batches on (seed, epoch) and the
global batch size: not on the number of workers, nor on how many ranks share a global batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_jpeg

from adafocus.clips import ClipTable
from adafocus.config import DataConfig
from adafocus.sampling import Pad, evaluation_frames, training_frames
from adafocus.transforms import evaluation_view, training_view, view_frames
from preprocessing.index import read_index
from preprocessing.schema import DatasetInfo, UserError
from preprocessing.storage import Store


@dataclass(frozen=True)
class Batch:
    """Clips as the networks get them."""

    glance_BTCHW: Tensor
    """uint8, what the glancer sees."""
    focus_BTCHW: Tensor
    """uint8, what patches are cut from: the same tensor as `glance_BTCHW` where both networks see the same frames."""
    labels_BL: Tensor
    """int64 class indices, padded with -1."""
    clip_ids: list[str]
    boxes_BT4: Tensor | None = None
    """float32 pixels (top, left, bottom, right) in the focus frames, where every clip of the batch has boxes."""

    def to(self, device: torch.device | str) -> Batch:
        """A copy on `device`; without waiting for it where memory is pinned."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """A copy in page-locked memory (the data loader calls this)."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Any) -> Batch:
        glance = change(self.glance_BTCHW)
        same = self.focus_BTCHW is self.glance_BTCHW
        return replace(
            self,
            glance_BTCHW=glance,
            focus_BTCHW=glance if same else change(self.focus_BTCHW),
            labels_BL=change(self.labels_BL),
            boxes_BT4=None if self.boxes_BT4 is None else change(self.boxes_BT4),
        )


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
        num_workers: int = 0,
        limit: int | None = None,
        independent_focus: bool = False,
    ) -> None:
        """`batch_size` is in clips of one rank: a global batch holds batch_size * world_size clips.

        In training the global batches are drawn anew each epoch and the incomplete last one is left out, unless it is
        the only one. In evaluation rank r takes the clips range(r, N, world_size), nothing dropped, nothing twice.
        `num_workers` processes decode ahead; 0 decodes in this process. `independent_focus` draws the focuser's frames
        apart from the glancer's (Something-Something); otherwise both see the same ones. Raises UserError if there is
        no finished data set or the split is empty.
        """
        if not independent_focus and data.num_frames != data.num_focus_frames:
            raise UserError(
                f"data.num_focus_frames is {data.num_focus_frames} and data.num_frames {data.num_frames}: they have to "
                "be equal in the untrimmed family, where both networks see the same frames"
            )
        if data.crop > data.resize:
            raise UserError(f"data.crop is {data.crop}, more than data.resize, {data.resize}")
        table = ClipTable(shards, split, limit)
        if train and len(table) < world_size:
            raise UserError(f"{world_size} workers cannot share the {len(table)} clips of split {split!r}")
        self.info: DatasetInfo = table.info
        self.digest: str = table.digest
        self.clip_ids: list[str] = table.clip_ids
        """Of all ranks, in the order of the index."""
        self.batch_size, self.train, self.seed = batch_size, train, seed
        self.rank, self.world_size = rank, world_size
        self._epoch, self._start, self._next = 0, 0, 0
        self._loader: DataLoader[Batch] = DataLoader(
            _Clips(table, data, seed, train, independent_focus),
            batch_size=None,
            sampler=_Sampler(self),
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    @staticmethod
    def describe(shards: str | Path) -> tuple[DatasetInfo, str]:
        """Facts and digest of a finished data set. Raises UserError if there is none."""
        index = read_index(Store(shards), columns=[])
        return index.info, index.digest

    @staticmethod
    def digest_of(shards: str | Path) -> str:
        """The digest that names the data set."""
        return ClipLoader.describe(shards)[1]

    def __len__(self) -> int:
        """Batches of a whole epoch, of this rank."""
        if self.train:
            return max(len(self.clip_ids) // (self.batch_size * self.world_size), 1)
        share = len(range(self.rank, len(self.clip_ids), self.world_size))
        return -(-share // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches the next iteration yields, from its first batch on."""
        self._epoch, self._start = epoch, 0

    def skip(self, num_batches: int) -> None:
        """Let the next iteration begin after so many batches, without reading them: to go on inside an epoch."""
        if not 0 <= num_batches <= len(self):
            raise ValueError(f"cannot skip {num_batches} of {len(self)} batches")
        self._start = num_batches

    def state_dict(self) -> dict[str, int]:
        """Where the iteration stands: the epoch and the number of batches that have been yielded."""
        return {"epoch": self._epoch, "batch": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where `state_dict` was taken."""
        self.set_epoch(state["epoch"])
        self.skip(state["batch"])

    def __iter__(self) -> Iterator[Batch]:
        self._next = self._start
        for batch in self._loader:
            self._next += 1
            yield batch
        self._start = 0

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Numbers of the clips in each of this rank's batches, in order."""
        count, size = len(self.clip_ids), self.batch_size
        if not self.train:
            share = np.arange(self.rank, count, self.world_size)
            return [share[start : start + size] for start in range(0, len(share), size)]
        order = np.random.default_rng((self.seed, epoch)).permutation(count)
        whole = size * self.world_size
        if count < whole:
            return [np.array_split(order, self.world_size)[self.rank]]
        starts = range(self.rank * size, count // whole * whole, whole)
        return [order[start : start + size] for start in starts]


class _Sampler:
    """What the workers are asked for: (epoch, clip numbers) of each batch still to come."""

    def __init__(self, loader: ClipLoader) -> None:
        self._owner = loader

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        owner = self._owner
        for batch in owner.batches(owner._epoch)[owner._start :]:
            yield owner._epoch, batch

    def __len__(self) -> int:
        return len(self._owner) - self._owner._start


class _Clips(Dataset[Batch]):
    """The work of one worker: read, decode, crop."""

    def __init__(self, table: ClipTable, data: DataConfig, seed: int, train: bool, independent_focus: bool) -> None:
        self._table, self._data, self._seed, self._train = table, data, seed, train
        self._independent = independent_focus
        self._max_labels = table.max_labels

    def __getitem__(self, request: tuple[int, np.ndarray]) -> Batch:
        epoch, numbers = request
        clips = [self._clip(epoch, int(number)) for number in numbers]
        glance = torch.stack([clip[0] for clip in clips])
        focus = torch.stack([clip[1] for clip in clips]) if self._independent else glance
        labels = torch.full((len(clips), self._max_labels), -1, dtype=torch.int64)
        for row, number in zip(labels, numbers, strict=True):
            found = self._table.labels(int(number))
            row[: len(found)] = torch.tensor(found)
        boxes = [clip[2] for clip in clips if clip[2] is not None]
        return Batch(
            glance_BTCHW=glance,
            focus_BTCHW=focus,
            labels_BL=labels,
            clip_ids=[self._table.clip_ids[number] for number in numbers],
            boxes_BT4=torch.from_numpy(np.stack(boxes)) if len(boxes) == len(clips) else None,
        )

    def _clip(self, epoch: int, number: int) -> tuple[Tensor, Tensor, np.ndarray | None]:
        table, data = self._table, self._data
        count, pad = table.num_frames(number), table.info.pad
        rng = np.random.default_rng((self._seed, epoch, number))
        glance = _pick(rng if self._train else None, count, data.num_frames, pad)
        focus = _pick(rng if self._train else None, count, data.num_focus_frames, pad) if self._independent else glance
        needed, place = np.unique(np.concatenate([glance, focus]), return_inverse=True)
        frames = [decode(jpeg) for jpeg in table.read(number, needed)]
        height, width = frames[0].shape[1:]
        if self._train:
            view = training_view(rng, height, width, data.crop, data.crop_scales, flip=table.info.flip)
        else:
            view = evaluation_view(height, width, data.resize, data.crop)
        seen = view_frames(frames, view)
        boxes = table.boxes(number)
        placed = None if boxes is None else view.place_boxes(boxes[focus], height, width)
        return seen[place[: len(glance)]], seen[place[len(glance) :]], placed


def _pick(rng: np.random.Generator | None, num_frames: int, count: int, pad: Pad) -> np.ndarray:
    return evaluation_frames(num_frames, count, pad) if rng is None else training_frames(rng, num_frames, count, pad)


def decode(jpeg: Tensor) -> Tensor:
    """RGB frame uint8 (C, H, W) of JPEG bytes uint8 (n,). Raises RuntimeError if they are none."""
    frame: Tensor = decode_jpeg(jpeg, mode=ImageReadMode.RGB)
    return frame


def evaluation_clip(
    jpegs: Sequence[bytes], data: DataConfig, pad: Pad = "last", *, independent_focus: bool = False
) -> tuple[Tensor, Tensor]:
    """(glance, focus) frames uint8 (T, C, H, W) of a clip given as all its JPEGs: the pixels that an evaluation loader
    gives for the same clip out of a shard."""
    glance = evaluation_frames(len(jpegs), data.num_frames, pad)
    focus = evaluation_frames(len(jpegs), data.num_focus_frames, pad) if independent_focus else glance
    frames = {
        index: decode(torch.frombuffer(bytearray(jpegs[index]), dtype=torch.uint8))
        for index in np.union1d(glance, focus).tolist()
    }
    first = next(iter(frames.values()))
    view = evaluation_view(first.shape[1], first.shape[2], data.resize, data.crop)
    glance_TCHW = view_frames([frames[index] for index in glance.tolist()], view)
    return glance_TCHW, view_frames(
        [frames[index] for index in focus.tolist()], view
    ) if independent_focus else glance_TCHW
