"""What becomes of a clip on its way to the networks. Goes in: JPEG bytes of chosen frames; comes out: batches.

Letters: B clips, T frames, C colours, H W pixels (H = W = `data.crop`), L labels.

What a clip looks like in an epoch depends on (seed, epoch, clip) alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from adafocus.clips import ClipTable
from adafocus.config import DataConfig
from adafocus.sampling import Pad, evaluation_frames, training_frames
from adafocus.transforms import evaluation_view, training_view, view_frames


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


@dataclass(frozen=True)
class MadeClip:
    """One clip of a batch, still without its fellows."""

    number: int
    glance_TCHW: Tensor
    focus_TCHW: Tensor
    boxes_T4: np.ndarray | None


class ClipMaker:
    """Chooses a clip's frames, decodes and crops them, and stacks clips to batches. Picklable."""

    def __init__(self, table: ClipTable, data: DataConfig, seed: int, train: bool, independent_focus: bool) -> None:
        self.table, self._data, self._seed, self._train = table, data, seed, train
        self._independent = independent_focus
        self._max_labels = table.max_labels

    def frames(self, epoch: int, number: int) -> np.ndarray:
        """Indices of the frames that the clip needs in this epoch, ascending, each once."""
        _, glance, focus = self._choose(epoch, number)
        return np.union1d(glance, focus)

    def make(self, epoch: int, number: int, jpegs: Sequence[Tensor]) -> MadeClip:
        """The clip from the JPEG bytes of `frames(epoch, number)`."""
        rng, glance, focus = self._choose(epoch, number)
        place = np.unique(np.concatenate([glance, focus]), return_inverse=True)[1]
        frames = [decode(jpeg) for jpeg in jpegs]
        height, width = frames[0].shape[1:]
        data, info = self._data, self.table.info
        if self._train:
            view = training_view(rng, height, width, data.crop, data.crop_scales, flip=info.flip)
        else:
            view = evaluation_view(height, width, data.resize, data.crop)
        seen = view_frames(frames, view)
        boxes = self.table.boxes(number)
        placed = None if boxes is None else view.place_boxes(boxes[focus], height, width)
        return MadeClip(number, seen[place[: len(glance)]], seen[place[len(glance) :]], placed)

    def stack(self, clips: Sequence[MadeClip]) -> Batch:
        """A batch of these clips, in their order."""
        glance = torch.stack([clip.glance_TCHW for clip in clips])
        labels = torch.full((len(clips), self._max_labels), -1, dtype=torch.int64)
        for row, clip in zip(labels, clips, strict=True):
            found = self.table.labels(clip.number)
            row[: len(found)] = torch.tensor(found)
        boxes = [clip.boxes_T4 for clip in clips if clip.boxes_T4 is not None]
        return Batch(
            glance_BTCHW=glance,
            focus_BTCHW=torch.stack([clip.focus_TCHW for clip in clips]) if self._independent else glance,
            labels_BL=labels,
            clip_ids=[self.table.clip_ids[clip.number] for clip in clips],
            boxes_BT4=torch.from_numpy(np.stack(boxes)) if len(boxes) == len(clips) else None,
        )

    def _choose(self, epoch: int, number: int) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
        """The clip's own random numbers, and the frames (T,) that glancer and focuser see."""
        rng = np.random.default_rng((self._seed, epoch, number))
        count, pad = self.table.num_frames(number), self.table.info.pad
        drawn = rng if self._train else None
        glance = _pick(drawn, count, self._data.num_frames, pad)
        focus = _pick(drawn, count, self._data.num_focus_frames, pad) if self._independent else glance
        return rng, glance, focus


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
