"""One clip until the model is sure: frames are fetched and computed no sooner than an exit needs them.

Shapes: t frames of a portion, T frames that the focuser looked at, S of them where the policy acts, C colours,
H W pixels, K classes, k cells of the action map per axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from adafocus.config.schema import DataConfig
from adafocus.data.decoding import decode_all, frame_size
from adafocus.data.transforms import View, evaluation_view
from adafocus.evaluation.early_exit import ExitRule
from adafocus.inference.prediction import action_map
from adafocus.models.adafocus import AdaFocus, Timer, untimed
from adafocus.models.outputs import Output, State

NO_LOCK = nullcontext()
FetchFrames = Callable[[Sequence[int]], Tensor]
"""Frames by their places in the order in which the model sees them, or may choose -> uint8 (t, C, H, W)."""


@dataclass(frozen=True, slots=True, eq=False)
class EarlyPass:
    """What was computed of a clip."""

    frames_TCHW: Tensor
    """The frames that the focuser looked at, uint8."""
    glance_TCHW: Tensor
    """Those that the glancer saw; the same tensor where they are the same."""
    logits_TK: Tensor
    """At each exit, float32 on the CPU; the last one is the clip's."""
    corners_T2: Tensor
    map_Skk: Tensor | None
    """The policy's probabilities over patch corners, where it has them."""
    looks_T: Tensor | None
    """Which frames the focuser looked at; None: all."""
    sizes_T2: Tensor | None
    """(height, width) of what each patch shows; None: of the patch itself."""
    places_T: Tensor | None
    """Which of the candidates the frames are; None: there was no choice."""


class FetchedFrames:
    """Frames of one clip that are fetched when they are needed, and kept. A `FrameSource`."""

    def __init__(self, glance: FetchFrames, look: FetchFrames, device: torch.device, timer: Timer) -> None:
        self._fetch_glance, self._fetch_look, self._device, self._timer = glance, look, device, timer
        self.glanced: list[Tensor] = []
        self.looked: list[Tensor] = []
        self._ahead: Tensor | None = None

    def fetch(self, places: range) -> None:
        """Fetch what the glancer will see next."""
        with self._timer("decode"):
            self._ahead = self._fetch_glance(places)

    def glances(self, places: range) -> Tensor:
        """Those that the glancer sees."""
        if self._ahead is None:
            self.fetch(places)
        assert self._ahead is not None
        frames_tCHW, self._ahead = self._ahead, None
        self.glanced.append(frames_tCHW)
        return frames_tCHW[None].to(self._device)

    def looks(self, places_BF: Tensor) -> Tensor:
        """Those of the candidates that were chosen."""
        with self._timer("decode"):
            self.looked.append(self._fetch_look(places_BF[0].tolist()))
        return self.looked[-1][None].to(self._device)


@torch.no_grad()
def run_early(
    model: AdaFocus,
    rule: ExitRule,
    glance: FetchFrames,
    look: FetchFrames | None = None,
    timer: Timer = untimed,
    lock: AbstractContextManager[object] = NO_LOCK,
) -> EarlyPass:
    """Fetch and compute a clip's frames until one of its exits is as sure as `rule` asks for. The networks run under
    `lock`. `look` fetches candidates, where the model chooses among them; these, and the glances of such a model, are
    fetched under the lock too, and should be decoded already."""
    state, source = State(), FetchedFrames(glance, look or glance, model.mean.device, timer)
    outputs: list[Output] = []
    for portion in rule.portions():
        if model.is_causal:
            source.fetch(portion)  # not under the lock: several threads may decode
        with lock:
            outputs.append(model.advance(source, portion, state, timer=timer))
        state = outputs[-1].state
        if bool(rule.leaves(portion[-1], outputs[-1].prediction_BK)):
            break

    def joined(values: Sequence[Tensor | None]) -> Tensor | None:
        known = [each.cpu() for each in values if each is not None]
        return torch.cat(known) if known else None

    choices = [output.choice for output in outputs]
    glance_TCHW, count = torch.cat(source.glanced), [output.corners_BT2.shape[1] for output in outputs]
    maps = [None if choice.policy is None else action_map(choice.policy) for choice in choices]
    sizes = [
        None if choice.sizes_BS2 is None else choice.sizes_BS2[0].expand(number, 2)
        for choice, number in zip(choices, count, strict=True)
    ]
    places_T = joined([None if choice.places_BF is None else choice.places_BF[0] for choice in choices])
    return EarlyPass(
        frames_TCHW=glance_TCHW if places_T is None else torch.cat([*source.looked, glance_TCHW[:0]]),
        glance_TCHW=glance_TCHW,
        logits_TK=torch.cat([output.logits_BTK[0].float().cpu() for output in outputs]),
        corners_T2=torch.cat([output.corners_BT2[0].cpu() for output in outputs]),
        map_Skk=joined(maps),
        looks_T=joined([None if choice.looks_BT is None else choice.looks_BT[0] for choice in choices]),
        sizes_T2=joined(sizes),
        places_T=places_T,
    )


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

    def __call__(self, portion: Sequence[int]) -> Tensor:
        """uint8 (t, C, H, W). Raises LookupError if there is no such JPEG, ValueError for a broken one."""
        return torch.stack([self._frame(self._jpegs[self._index_T[place]]) for place in portion])

    def _frame(self, jpeg: bytes) -> Tensor:
        data = np.frombuffer(bytearray(jpeg), np.uint8)
        if self._view is None:
            self._size = frame_size(data)
            self._view = evaluation_view(*self._size, self._data.resize, self._data.crop)
        (decoded_CHW,) = decode_all([data], self._size, end=self._view.end, fast=False)
        return self._view.apply(decoded_CHW)
