"""A video as it arrives: one frame in, the running prediction and the patch out. For models that are causal.

Every frame costs one step of each network, and nothing is kept of the frames before but the model's state: step by step
the answers are those of the whole clip.

Shapes: C colours, H W pixels, K classes, k cells of the action map per axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adafocus.data.transforms import View, evaluation_view
from adafocus.evaluation.early_exit import ExitRule
from adafocus.models.adafocus import AdaFocus, Patches
from adafocus.models.outputs import State


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """After one more frame."""

    num_frames: int
    """Frames seen so far."""
    logits_K: Tensor
    """float32, on the CPU."""
    corner: tuple[int, int]
    """(row, column) of the patch in the square frame that the networks see."""
    box: tuple[float, float, float, float]
    """The same patch in the given frame: (top, left, bottom, right) in its pixels."""
    looked: bool = True
    """Did the focuser look at it, or was the frame skipped?"""
    is_final: bool = False
    """Is the model as sure as its budget asks for? Then no further frame is computed."""

    @property
    def probability(self) -> Tensor:
        """float32 (K,), softmax of the logits."""
        return self.logits_K.softmax(-1)


class OnlineClip:
    """Give it the frames of one video, in order, with `push`. They should be spaced as in training: a clip of the
    evaluation is `data.num_frames` of them, evenly spread, in the order of `data.frame_order`."""

    def __init__(self, model: AdaFocus, patches: Patches = "policy", rule: ExitRule | None = None) -> None:
        """`rule` says when the model is sure enough."""
        self._model, self._patches, self._rule = model, patches, rule
        self._last: Running | None = None
        self._view: View | None = None
        self._size = (0, 0)
        self._state = State()
        self._count = 0

    @torch.no_grad()
    def push(self, frame: np.ndarray | Tensor) -> Running:
        """One more frame: RGB uint8 (H, W, 3), or (C, H, W) as a tensor. Behind a final answer it is not looked at, and
        that answer comes again. Raises ValueError for anything else, and for a frame of another size than the first."""
        if self._last and self._last.is_final:
            return self._last
        model, data = self._model, self._model.config.data
        frame_CHW = torch.from_numpy(frame).permute(2, 0, 1) if isinstance(frame, np.ndarray) else frame
        if frame_CHW.dtype != torch.uint8 or frame_CHW.ndim != 3 or frame_CHW.shape[0] != 3:
            raise ValueError(f"a frame is RGB, uint8, (H, W, 3) or a tensor (3, H, W), not {frame.dtype} {frame.shape}")
        size = (frame_CHW.shape[1], frame_CHW.shape[2])
        if self._view is None:
            self._view, self._size = evaluation_view(*size, data.resize, data.crop), size
        if size != self._size:
            raise ValueError(f"a frame of {size} pixels in a video of {self._size}")
        if self._count == model.most_frames:
            raise ValueError(f"the model predicts after at most {self._count} frames of a clip")
        frames_B1CHW = self._view.apply(frame_CHW)[None, None].to(model.mean.device)
        output = model(frames_B1CHW, frames_B1CHW, self._patches, state=self._state)
        self._state = output.state
        self._count += 1
        row, column = output.corners_BT2[0, 0].tolist()
        box = self._view.source_box(row, column, model.config.model.patch_size)
        looked = output.choice.looks_BT is None or bool(output.choice.looks_BT)
        is_final = self._rule is not None and bool(self._rule.leaves(self._count - 1, output.prediction_BK))
        logits_K = output.prediction_BK[0].float().cpu()
        self._last = Running(self._count, logits_K, (row, column), box, looked, is_final)
        return self._last
