"""One video's frames as the networks see them, and what the model says of them.

Shapes: T exits or focus frames, S of them where the policy acts, C colours, H W pixels, K classes, k cells of the
action map per axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from adafocus.models.policies.policy import GaussianActions, GridActions, PolicyOutput
from preprocessing.media.extraction import Extraction
from preprocessing.schema import UserError

GAUSSIAN_CELLS = 15
"""Cells per axis of the map that a Gaussian policy is drawn on."""


class VideoError(UserError):
    """A video without usable frames; the message is the reason."""


@dataclass(frozen=True, slots=True, eq=False)
class ClipFrames:
    """The frames of a clip that the networks see."""

    name: str
    glance_TCHW: Tensor
    """uint8."""
    focus_TCHW: Tensor
    """uint8; the same tensor where the networks share frames."""
    index_T: np.ndarray
    """Of the focus frames in the video, from 0; of all candidates where the method chooses among them."""
    source: Extraction
    decode_ms: float
    boxes_T4: Tensor | None = None
    """Of the object in each focus frame, float32 pixels (top, left, bottom, right), NaN where there is none; None where
    they are not known."""

    def at(self, places_T: Tensor | None) -> ClipFrames:
        """The clip with the chosen ones of its candidates as focus frames (None: it has no candidates)."""
        if places_T is None:
            return self
        boxes_T4 = None if self.boxes_T4 is None else self.boxes_T4[places_T]
        index_T = self.index_T[places_T.numpy()]
        return replace(self, focus_TCHW=self.focus_TCHW[places_T], index_T=index_T, boxes_T4=boxes_T4)


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What the model says of a clip. Tensors are float32 or int64 on the CPU."""

    name: str
    class_names: tuple[str, ...]
    logits_TK: Tensor
    """At each exit, after `exit_frames` focus frames; the last one is the clip's. With a budget it stopped there."""
    corners_T2: Tensor
    """(row, column) of the patch in each focus frame."""
    map_Skk: Tensor | None
    """The policy's probabilities over patch corners, row first; None where it has none or did not choose."""
    gflops: dict[str, float]
    """Of what was computed, by part."""
    times_ms: dict[str, float]
    """Milliseconds by part, `TIMED`."""
    source: Extraction
    exit_frames: tuple[int, ...]
    """Focus frames seen at each exit."""
    looks_T: Tensor | None = None
    """Which frames the focuser looked at, bool; None: all."""
    sizes_T2: Tensor | None = None
    """(height, width) of what each patch shows, in pixels of the frame; None: of the patch itself."""
    places_T: Tensor | None = None
    """Which of its candidates the focuser saw; None: it had no choice."""

    @property
    def probability(self) -> Tensor:
        """float32 (T, K), softmax of the logits."""
        return self.logits_TK.softmax(-1)

    @property
    def after_frames(self) -> Tensor:
        """float32 (T, K): the probabilities after each focus frame, those of the next exit."""
        return self.probability[exits_after(self.exit_frames, len(self.corners_T2))]

    def top(self, count: int = 5, after: int = 0) -> list[tuple[str, float]]:
        """The most likely classes and their probabilities, at the exit of this number from 1 on (0: the last)."""
        best = self.probability[after - 1].topk(min(count, len(self.class_names)))
        return [(self.class_names[k], p) for k, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]

    def course(self) -> list[tuple[int, str, float]]:
        """(focus frames seen, likeliest class, its probability) at exits 1, 2, 4, ... and the last."""
        total = len(self.logits_TK)
        exits = sorted({*(2**power for power in range(total.bit_length())), total})
        return [(self.exit_frames[number - 1], *self.top(1, number)[0]) for number in exits if number <= total]


def exits_after(exit_frames: Sequence[int], count: int) -> list[int]:
    """For each of the first `count` focus frames the first exit that has seen it, or else the last one."""
    last = len(exit_frames) - 1
    return [next((exit for exit, seen in enumerate(exit_frames) if seen > step), last) for step in range(count)]


def action_map(output: PolicyOutput) -> Tensor | None:
    """The first clip's probabilities over patch corners, float32 (S, k, k) on the CPU, row first; None of a policy that
    gives positions, not probabilities.

    A Gaussian's density is taken at corners that are evenly spread over the frame, and normalised.
    """
    actions = output.actions
    if isinstance(actions, GridActions):
        prob_SA = actions.log_probs_BSA[0].exp().cpu()
        return prob_SA.unflatten(-1, (round(prob_SA.shape[-1] ** 0.5), -1))
    if not isinstance(actions, GaussianActions):
        return None
    place_k = torch.linspace(0, 1, GAUSSIAN_CELLS)
    place_kk2 = torch.stack(torch.meshgrid(place_k, place_k, indexing="ij"), -1)
    mean_S112 = actions.mean_BS2[0].float().cpu()[:, None, None]
    log_Skk = -((place_kk2 - mean_S112) / actions.std).square().sum(-1) / 2
    return log_Skk.flatten(1).softmax(-1).view_as(log_Skk)
