"""One clip until the model is sure: frames are fetched and computed no sooner than an exit needs them.

Shapes: t frames of a portion, T frames that were computed, S of them where the policy acts, C colours, H W pixels, K
classes, k cells of the action map per axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from adafocus.config.schema import DataConfig
from adafocus.data.decoding import decode_all, frame_size
from adafocus.data.transforms import View, evaluation_view
from adafocus.evaluation.early_exit import ExitRule
from adafocus.inference.prediction import action_map
from adafocus.models.adafocus import AdaFocus, Timer, untimed
from adafocus.models.outputs import State

NO_LOCK = nullcontext()
FetchFrames = Callable[[range], Tensor]
"""Frames by their places in the order in which the model sees them -> uint8 (t, C, H, W)."""


@dataclass(frozen=True, slots=True, eq=False)
class EarlyPass:
    """What was computed of a clip."""

    frames_TCHW: Tensor
    """The frames that were fetched, uint8."""
    logits_TK: Tensor
    """After each of them, float32 on the CPU; the last one is the clip's."""
    corners_T2: Tensor
    map_Skk: Tensor | None
    """The policy's probabilities over patch corners, where it has them."""
    looks_T: Tensor | None
    """Which frames the focuser looked at; None: all."""


@torch.no_grad()
def run_early(
    model: AdaFocus,
    rule: ExitRule,
    fetch: FetchFrames,
    timer: Timer = untimed,
    lock: AbstractContextManager[object] = NO_LOCK,
) -> EarlyPass:
    """Fetch and compute a clip's frames until one of its exits is as sure as `rule` asks for. The networks run under
    `lock`."""
    state, device = State(), model.mean.device
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]] = []
    for portion in rule.portions():
        with timer("decode"):
            frames_tCHW = fetch(portion)
        with lock:
            frames_BTCHW = frames_tCHW[None].to(device)
            output = model(frames_BTCHW, frames_BTCHW, state=state, timer=timer)
        policy, state = output.choice.policy, output.state
        map_Skk = None if policy is None else action_map(policy)
        looks_t = None if output.choice.looks_BT is None else output.choice.looks_BT[0].cpu()
        logits_tK = output.logits_BTK[0].float().cpu()
        parts.append((frames_tCHW, logits_tK, output.corners_BT2[0].cpu(), map_Skk, looks_t))
        if bool(rule.leaves(portion[-1], output.prediction_BK)):
            break
    frames, logits, corners, maps, looks = zip(*parts, strict=True)
    known = [None if each[0] is None else torch.cat(each) for each in (maps, looks)]
    return EarlyPass(torch.cat(frames), torch.cat(logits), torch.cat(corners), *known)


class Jpegs(Protocol):
    """JPEGs by their frames' indices."""

    def __getitem__(self, index: int, /) -> bytes: ...


class JpegFrames:
    """Frames of JPEGs, each decoded and cropped when it is asked for, as the evaluation does. A `FetchFrames`."""

    def __init__(self, jpegs: Jpegs, index_T: Sequence[int], data: DataConfig) -> None:
        """`index_T`: the frames' indices, in the order in which the model sees them."""
        self._jpegs, self._index_T, self._data = jpegs, index_T, data
        self._size = (0, 0)
        self._view: View | None = None

    def __call__(self, portion: range) -> Tensor:
        """uint8 (t, C, H, W). Raises LookupError if there is no such JPEG, ValueError for a broken one."""
        return torch.stack([self._frame(self._jpegs[self._index_T[place]]) for place in portion])

    def _frame(self, jpeg: bytes) -> Tensor:
        data = torch.frombuffer(bytearray(jpeg), dtype=torch.uint8)
        if self._view is None:
            self._size = frame_size(data)
            self._view = evaluation_view(*self._size, self._data.resize, self._data.crop)
        (decoded_CHW,) = decode_all([data], self._size, end=self._view.end, fast=False)
        return self._view.apply(decoded_CHW)
