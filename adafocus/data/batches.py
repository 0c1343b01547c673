"""Batches of clips as the networks get them. Goes in: JPEG bytes of sampled frames; comes out: batches.

Letters: B clips, T frames, C colours, H W pixels (H = W = `data.crop`), L labels.

What a clip looks like in an epoch depends on (seed, epoch, clip) alone.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from adafocus.config.schema import DataConfig
from adafocus.data.clip_table import ClipTable, ShardError
from adafocus.data.decoding import draw_views, frame_size
from adafocus.data.sampling import clip_frames
from adafocus.data.shared_frames import SharedFrames, receive
from adafocus.data.transforms import View, evaluation_view, training_view
from preprocessing.frame_choice import Pad


@dataclass(frozen=True)
class Batch:
    """Clips as the networks get them."""

    glance_BTCHW: Tensor
    """uint8, what the glancer sees."""
    focus_BTCHW: Tensor
    """uint8, what patches are cut from: the same tensor as `glance_BTCHW` where both networks see the same frames; all
    candidates where the method chooses among them."""
    labels_BL: Tensor
    """int64 class indices, padded with -1."""
    clip_ids: list[str]
    boxes_BT4: Tensor | None = None
    """float32 pixels (top, left, bottom, right) in the focus frames, NaN where no object is known; None where the split
    has no boxes."""

    def to(self, device: torch.device | str) -> Batch:
        """A copy on `device`; without waiting for it where memory is pinned."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """A copy in page-locked memory (the data loader calls this)."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        glance = change(self.glance_BTCHW)
        same = self.focus_BTCHW is self.glance_BTCHW
        return replace(
            self,
            glance_BTCHW=glance,
            focus_BTCHW=glance if same else change(self.focus_BTCHW),
            labels_BL=change(self.labels_BL),
            boxes_BT4=None if self.boxes_BT4 is None else change(self.boxes_BT4),
        )


class SentBatch:
    """A batch on its way from a data loader's worker: where it arrives it is a batch."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __reduce__(self) -> tuple[Callable[..., Batch], tuple[Any, ...]]:
        batch = self._batch
        # Frames are in shared memory, and what is small travels as plain bytes: to share it would cost more.
        boxes = None if batch.boxes_BT4 is None else batch.boxes_BT4.numpy()
        return _arrived, (batch.glance_BTCHW, batch.focus_BTCHW, batch.labels_BL.numpy(), batch.clip_ids, boxes)


def _arrived(glance: Tensor, focus: Tensor, labels: np.ndarray, clip_ids: list[str], boxes: np.ndarray | None) -> Batch:
    received = receive(glance)
    return Batch(
        glance_BTCHW=received,
        focus_BTCHW=received if focus is glance else receive(focus),
        labels_BL=torch.from_numpy(labels),
        clip_ids=clip_ids,
        boxes_BT4=None if boxes is None else torch.from_numpy(boxes),
    )


Sent = Batch | SentBatch | ShardError
"""What a data set for torch's data loader gives; a sent batch has become a batch when the loader gives it on."""


class ClipMaker:
    """Samples a clip's frames, decodes and crops them, and stacks clips to batches. Picklable."""

    def __init__(self, table: ClipTable, data: DataConfig, seed: int, train: bool) -> None:
        among = data.num_candidates and data.focus_frames == "shared"  # then glances are some of the candidates
        table.check_packed(*([] if among else [data.num_frames]), train=train)
        table.check_packed(data.num_offered, train=train, spread=bool(data.num_candidates))
        self.table, self._data, self._seed, self._train = table, data, seed, train
        self._max_labels, self._has_boxes = table.max_labels, table.has_boxes
        self._threads: ThreadPoolExecutor | None = None
        self._shared = SharedFrames()

    def frames(self, epoch: int, number: int) -> np.ndarray:
        """Indices of the frames that the clip needs in this epoch, ascending, each once."""
        _, glance, focus = self._sample(epoch, number)
        return np.union1d(glance, focus)

    def send(self, epoch: int, clips: Sequence[tuple[int, Sequence[np.ndarray]]], *, last: bool = False) -> Sent:
        """A batch as a data loader's worker hands it over, if this is one. `last`: it makes no more for a while."""
        if get_worker_info() is None:
            return self.make(epoch, clips)
        batch = self.make(epoch, clips, self._shared)
        if last:
            self._shared.let_go()
        return SentBatch(batch)

    def make(
        self, epoch: int, clips: Sequence[tuple[int, Sequence[np.ndarray]]], shared: SharedFrames | None = None
    ) -> Batch:
        """A batch of clips, given as their numbers and the JPEG bytes of `frames(epoch, number)`. Raises ShardError for
        a frame that cannot be decoded."""
        data = self._data
        glance = _empty(len(clips), data.num_frames, data.crop, shared)
        focus = glance if data.shares_frames else _empty(len(clips), data.num_offered, data.crop, shared)
        labels = torch.full((len(clips), self._max_labels), -1, dtype=torch.int64)
        for row, (number, _) in enumerate(clips):
            indices = self.table.labels(number)
            labels[row, : len(indices)] = torch.tensor(indices)
        fill = partial(self._fill, epoch)
        boxes = list(self._map(fill, *zip(*clips, strict=True), glance, focus))
        return Batch(
            glance_BTCHW=glance,
            focus_BTCHW=focus,
            labels_BL=labels,
            clip_ids=[self.table.clip_ids[number] for number, _ in clips],
            boxes_BT4=torch.from_numpy(np.stack(boxes)) if self._has_boxes else None,
        )

    def _map(self, work: Callable[..., Any], *columns: Iterable[Any]) -> Iterable[Any]:
        """`work` on each clip, in as many threads as torch may use here: decoders let go of the interpreter's lock.

        In a data loader's worker that is one, in the training process all cores.
        """
        if torch.get_num_threads() == 1:
            return map(work, *columns)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(torch.get_num_threads(), initializer=_one_thread)
        return self._threads.map(work, *columns)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_threads": None}

    def _fill(
        self, epoch: int, number: int, jpegs: Sequence[np.ndarray], glance_TCHW: Tensor, focus_TCHW: Tensor
    ) -> np.ndarray:
        """Decode and crop a clip's frames to where they belong. Returns its boxes in the focus frames, (T, 4)."""
        rng, glance, focus = self._sample(epoch, number)
        targets = [(glance, glance_TCHW)] if self._data.shares_frames else [(glance, glance_TCHW), (focus, focus_TCHW)]
        try:
            size = frame_size(jpegs[0])
            view = self._view(rng, *size)
            draw_views(jpegs, size, view, targets, fast=self._train)
        except ValueError as error:
            raise self.table.error(number, f"a frame cannot be decoded ({error})") from None
        boxes = self.table.boxes(number)
        if boxes is None:
            return np.full((len(focus), 4), np.nan, np.float32)
        return view.place_boxes(boxes[self.table.positions(number, focus)], *size)

    def _view(self, rng: np.random.Generator, height: int, width: int) -> View:
        data = self._data
        if self._train:
            return training_view(rng, height, width, data.crop, data.crop_scales, flip=self.table.info.flip)
        return evaluation_view(height, width, data.resize, data.crop)

    def _sample(self, epoch: int, number: int) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
        """The clip's own random numbers, and the frames (T,) that glancer and focuser see."""
        rng = np.random.default_rng((self._seed, epoch, number))
        count, pad = self.table.num_frames(number), self.table.info.pad
        if not self._train:
            return rng, *clip_frames(self._data, count, pad)
        return rng, *clip_frames(self._data, count, pad, rng, self.table.packed(number))


def start_worker(number: int) -> None:
    """Prepare a data loader's worker, before it does anything."""
    gc.freeze()  # what it has from the process that started it, imports above all, is not searched for garbage


def batches_or_error(results: Iterable[Sent]) -> Iterator[Batch]:
    """The batches that a data loader's workers send. Raises the error that one sends instead."""
    iterator = iter(results)
    while (result := next(iterator, None)) is not None:
        if isinstance(result, ShardError):
            del iterator  # the workers stop now, and not when somebody has handled the error
            raise result
        assert isinstance(result, Batch)
        yield result


def _one_thread() -> None:
    torch.set_num_threads(1)  # of this thread: work is split by clip, not within a frame


def _empty(clips: int, frames: int, side: int, shared: SharedFrames | None = None) -> Tensor:
    """uint8 (B, T, C, H, W) with colours last in memory, as JPEG decoders write them and convolutions like them."""
    shape = (clips, frames, side, side, 3)
    if shared is None:
        pixels = torch.from_numpy(np.empty(shape, np.uint8))  # numpy asks for huge pages
    else:
        pixels = shared.take(math.prod(shape)).view(shape)
    return pixels.permute(0, 1, 4, 2, 3)


def evaluation_clip(jpegs: Sequence[bytes], data: DataConfig, pad: Pad = "last") -> tuple[Tensor, Tensor]:
    """(glance, focus) frames uint8 (T, C, H, W) of a clip given as all its JPEGs: the pixels that an evaluation loader
    gives for the same clip out of a shard."""
    glance, focus = clip_frames(data, len(jpegs), pad)
    sampled = [np.frombuffer(bytearray(jpegs[index]), np.uint8) for index in np.union1d(glance, focus)]
    size = frame_size(sampled[0])
    view = evaluation_view(*size, data.resize, data.crop)
    glance_TCHW = _empty(1, data.num_frames, data.crop)[0]
    focus_TCHW = glance_TCHW if data.shares_frames else _empty(1, data.num_offered, data.crop)[0]
    targets = [(glance, glance_TCHW)] if data.shares_frames else [(glance, glance_TCHW), (focus, focus_TCHW)]
    draw_views(sampled, size, view, targets, fast=False)
    return glance_TCHW, focus_TCHW
