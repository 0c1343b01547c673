"""Time and memory of a forward pass on this machine, of a batch that is in memory."""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from adafocus.data.loader import Batch
from adafocus.evaluation.early_exit import ExitRule, predict_early
from adafocus.evaluation.evaluate import PatchSource, predict_batch
from adafocus.models.adafocus import AdaFocus
from adafocus.models.frame_source import TensorFrames
from adafocus.models.outputs import State


def first_clip(batch: Batch) -> Batch:
    """The batch's first clip alone."""
    boxes = None if batch.boxes_BT4 is None else batch.boxes_BT4[:1]
    return replace(
        batch,
        glance_BTCHW=batch.glance_BTCHW[:1],
        focus_BTCHW=batch.focus_BTCHW[:1],
        labels_BL=batch.labels_BL[:1],
        clip_ids=batch.clip_ids[:1],
        boxes_BT4=boxes,
    )


class TensorMemory(TorchDispatchMode):
    """A context that counts the bytes of the tensors that operations make, until they are freed; on any device."""

    def __init__(self, *initial: Tensor) -> None:
        """`initial` are tensors that count from the start."""
        super().__init__()
        self.bytes = self.peak = 0
        self._known = WeakIdKeyDictionary()
        for tensor in initial:
            self._add(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called for every operation, those of a backward pass too."""
        return tree_map_only(Tensor, self._add, func(*args, **(kwargs or {})))

    def _add(self, tensor: Tensor) -> Tensor:
        if tensor.layout != torch.strided:  # weights laid out for a kernel: not what a pass makes
            return tensor
        storage = tensor.untyped_storage()
        if storage not in self._known:  # else it is a view, or the operation was in place
            self._known[storage] = storage.nbytes()
            weakref.finalize(storage, self._drop, storage.nbytes())
            self.bytes += storage.nbytes()
            self.peak = max(self.peak, self.bytes)
        return tensor

    def _drop(self, size: int) -> None:
        self.bytes -= size


@torch.no_grad()  # as in evaluation: a compiled network has code of its own for each mode
def median_seconds(model: AdaFocus, batch: Batch, patches: PatchSource, repeats: int = 5) -> float:
    """Median time of a batch: frames in, prediction out. A first pass, which may lay out or compile, is not counted."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        predict_batch(model, batch, patches).logits_BTK.sum().item()  # waits for the device
        times.append(time.perf_counter() - started)
    return sorted(times[1:])[repeats // 2]


def median_early_seconds(model: AdaFocus, batch: Batch, rule: ExitRule, repeats: int = 3) -> float:
    """The same of a batch whose clips are taken out when they stop."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        predict_early(model, batch, rule)[0].sum().item()
        times.append(time.perf_counter() - started)
    return sorted(times[1:])[repeats // 2]


@torch.no_grad()
def seconds_to_exits(model: AdaFocus, clip: Batch, rule: ExitRule, repeats: int = 3) -> dict[int, float]:
    """Median time after which a clip has reached each exit at which it may stop, by the exit's number."""
    times: dict[int, list[float]] = {portion[-1]: [] for portion in rule.portions()}
    for _ in range(repeats + 1):
        started, state = time.perf_counter(), State()
        for portion in rule.portions():
            output = model.advance(TensorFrames(clip.glance_BTCHW, clip.focus_BTCHW), portion, state)
            bool(rule.leaves(portion[-1], output.prediction_BK))  # waits for the device, as whoever stops has to
            state = output.state
            times[portion[-1]].append(time.perf_counter() - started)
    return {number: sorted(each[1:])[repeats // 2] for number, each in times.items()}


@torch.no_grad()
def peak_bytes(model: AdaFocus, batch: Batch, patches: PatchSource) -> int:
    """Most bytes that tensors took at one time: the batch, and what a pass makes of it; without the weights.

    Counted operation by operation, so that it is the same in every run; a kernel's own scratch memory is left out.
    """
    with TensorMemory(batch.glance_BTCHW, batch.focus_BTCHW) as memory:
        predict_batch(model, batch, patches)
    return memory.peak
