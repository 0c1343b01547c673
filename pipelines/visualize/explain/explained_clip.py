"""A clip with its prediction, as the pictures of it show it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from adafocus.inference.prediction import ClipFrames, Prediction
from adafocus.inference.predictor import AdaFocusPredictor
from pipelines.visualize.drawing import GREEN, RED, WHITE, Colour
from preprocessing.sources import readable_name


@dataclass(frozen=True, slots=True, eq=False)
class ExplainedClip:
    """A clip, the patch in each of its frames, and the prediction after each. T frames, K classes."""

    title: str
    class_names: tuple[str, ...]
    frames_TCHW: Tensor
    """uint8, what patches are cut from."""
    index_T: np.ndarray | None
    """Number of each frame in its video, where that is known."""
    corners_T2: Tensor
    """(row, column) of the patch in each frame."""
    probability_TK: Tensor
    patch_size: int
    truth: str | None = None
    """The clip's class, where that is known."""
    looks_T: Tensor | None = None
    """Which frames the focuser looked at, bool; None: all."""
    boxes_T4: Tensor | None = None
    """Of the object in each frame, float32 pixels (top, left, bottom, right), NaN where there is none; None where they
    are not known."""
    sizes_T2: Tensor | None = None
    """(height, width) of what each patch shows; None: `patch_size`."""

    def shown(self, step: int) -> tuple[float, float, float, float]:
        """(row, column, height, width) of what the patch shows of this frame."""
        size = [self.patch_size] * 2 if self.sizes_T2 is None else self.sizes_T2[step].tolist()
        row, column = self.corners_T2[step].tolist()
        return row, column, size[0], size[1]

    def looked(self, step: int) -> bool:
        """Did the focuser look at this frame, or was it skipped?"""
        return self.looks_T is None or bool(self.looks_T[step])

    @classmethod
    def of_prediction(
        cls, model: AdaFocusPredictor, clip: ClipFrames, prediction: Prediction, truth: str | None = None
    ) -> ExplainedClip:
        """The frames that a predictor read of a video, and what it predicted of them."""
        return cls(
            title=readable_name(Path(clip.name).name),
            class_names=prediction.class_names,
            frames_TCHW=clip.focus_TCHW,
            index_T=clip.index_T,
            corners_T2=prediction.corners_T2,
            probability_TK=prediction.after_frames,
            patch_size=model.config.model.patch_size,
            truth=truth,
            looks_T=prediction.looks_T,
            boxes_T4=clip.boxes_T4,
            sizes_T2=prediction.sizes_T2,
        )

    def box(self, step: int) -> list[float] | None:
        """The object's own box (top, left, bottom, right) in this frame, where it is known and there is one."""
        if self.boxes_T4 is None or self.boxes_T4[step].isnan().any():
            return None
        box: list[float] = self.boxes_T4[step].tolist()
        return box

    @property
    def likeliest(self) -> list[tuple[str, float]]:
        """The likeliest class and its probability after each frame."""
        best = self.probability_TK.max(-1)
        return [(self.class_names[k], p) for k, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]

    def colour(self, name: str) -> Colour:
        """Green for the true class, red for another one, white where the true class is not known."""
        return WHITE if self.truth is None else GREEN if name == self.truth else RED
