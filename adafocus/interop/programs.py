"""A model taken apart into four programs that run on their own: modules in plain tensors, for `torch.export` and ONNX.

Untrimmed: glancer, policy (one step), focuser, classifier (one step); states of the last step go into the next one, and
start as zeros. Trimmed: the same four, once a clip. Frames go in as uint8: normalisation and the glancer's resizing are
part of the programs.

Shapes: N frames of one or more clips, B clips, T glance and F focus frames of a clip, C colours, H W pixels, h w map
cells, P patch side, D features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from adafocus.models.adafocus import AdaFocus, Trimmed, look, normalise
from adafocus.models.classifier import GRUClassifier
from adafocus.models.policy import GaussianActions, GridActions


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """One exportable part, with inputs that show their shapes."""

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    any_number: bool
    """Is the inputs' first axis of any length (the same for all), rather than that of a clip?"""


class Normalised(nn.Module):
    """What takes uint8 images."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: AdaFocus) -> None:
        super().__init__()
        self.register_buffer("mean", model.mean.clone())
        self.register_buffer("std", model.std.clone())

    def normalise(self, images_NCHW: Tensor) -> Tensor:
        """As `AdaFocus.prepare`."""
        return normalise(images_NCHW, self.mean, self.std)


class GlancerProgram(Normalised):
    """frames uint8 (N, C, H, W) -> map (N, D, h, w), feature (N, D), logits (N, K)."""

    def __init__(self, model: AdaFocus) -> None:
        super().__init__(model)
        self.net, self.size = model.glancer, model.config.model.glance_size

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `AdaFocus.glance`."""
        return look(self.net, self.normalise(frames), self.size)


class FocuserProgram(Normalised):
    """patches uint8 (N, C, P, P) -> focus (N, D)."""

    def __init__(self, model: AdaFocus) -> None:
        super().__init__(model)
        self.net = model.focuser

    def forward(self, patches: Tensor) -> Tensor:
        """As `AdaFocus.focus`."""
        return self.net(self.normalise(patches))


class PolicyProgram(nn.Module):
    """map, policy_state (B, width) -> corner int64 (B, 2), action, next_policy_state.

    `map` is (B, D, h, w), for the trimmed family (T, D, h, w) of one clip. `action` holds the logarithms of the grid's
    probabilities (B, k*k), or the Gaussian's mean (B, 2).
    """

    def __init__(self, model: AdaFocus) -> None:
        super().__init__()
        self.policy, self.side, self.joins = model.policy, model.config.data.crop, isinstance(model, Trimmed)

    def forward(self, map: Tensor, policy_state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The most likely patch."""
        map_BSDhw = (map.flatten(0, 1)[None] if self.joins else map)[:, None]
        output, hidden_1BD = self.policy.step_all(map_BSDhw, policy_state[None])
        actions = output.actions
        told = actions.log_probs_BSA if isinstance(actions, GridActions) else cast(GaussianActions, actions).mean_BS2
        return self.policy.corners(actions.mode(), self.side)[:, 0], told[:, 0], hidden_1BD[0]


class ClassifierStep(nn.Module):
    """focus (B, D), classifier_state, [glance] -> prediction (B, K), next_classifier_state.

    The state is a GRU's (B, width), or the sum and number of what was said so far (B, K + 1). `glance` is the glancer's
    feature (B, D) or its logits (B, K), see `glance_input`.
    """

    def __init__(self, model: AdaFocus) -> None:
        super().__init__()
        self.classifier = model.classifier
        self.concatenates, self.averages = model.concatenates, model.averages_glances

    def forward(self, focus: Tensor, classifier_state: Tensor, glance: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """After one more frame."""
        feature_BD = torch.cat([glance, focus], -1) if glance is not None and self.concatenates else focus
        if isinstance(self.classifier, GRUClassifier):
            logits_BK, hidden_1BD = self.classifier.step(feature_BD, classifier_state[None])
            return logits_BK, hidden_1BD[0]
        said_BK = self.classifier.last(self.classifier.dropout(feature_BD))
        if glance is not None and self.averages:
            said_BK = said_BK + glance
        state = classifier_state + torch.cat([said_BK, torch.ones_like(said_BK[:, :1])], 1)
        return state[:, :-1] / state[:, -1:], state


class ClipClassifier(nn.Module):
    """focus (F, D), [glance (T, ...)] of a clip of the trimmed family -> prediction (F, K) after each focus frame."""

    def __init__(self, model: AdaFocus) -> None:
        super().__init__()
        self.classifier = model.classifier
        self.concatenates, self.averages = model.concatenates, model.averages_glances

    def forward(self, focus: Tensor, glance: Tensor | None = None) -> Tensor:
        """As `Trimmed.classify`."""
        if glance is not None and self.concatenates:
            focus = torch.cat([glance.mean(0, keepdim=True).expand(focus.shape[0], -1), focus], -1)
        logits_FK = self.classifier(focus[None])[0]
        return logits_FK + glance.mean(0, keepdim=True) if glance is not None and self.averages else logits_FK


def glance_input(model: AdaFocus) -> str | None:
    """Which of the glancer's outputs the classifier takes as `glance`: feature, logits, or none of them."""
    return "feature" if model.concatenates else "logits" if model.averages_glances else None


def start_states(model: AdaFocus, clips: int = 1) -> dict[str, Tensor]:
    """The zeros that states start with, by their names."""
    classifier, config = model.classifier, model.config.model
    width = classifier.gru.hidden_size if isinstance(classifier, GRUClassifier) else model.num_classes + 1
    states = {"policy_state": torch.zeros(clips, config.policy_hidden)}
    return states if isinstance(model, Trimmed) else states | {"classifier_state": torch.zeros(clips, width)}


def take_apart(model: AdaFocus) -> list[Program]:
    """The four programs of a model (on the CPU), in the order in which they run. What they are given to show their
    shapes is noise; untrimmed programs take any number of frames or clips."""
    trimmed, data, side = isinstance(model, Trimmed), model.config.data, model.config.model.patch_size
    count, focused = (data.num_frames, data.num_focus_frames) if trimmed else (2, 2)
    states = start_states(model, 1 if trimmed else 2)
    frames = torch.randint(256, (count, 3, data.crop, data.crop), dtype=torch.uint8)
    patches = torch.randint(256, (focused, 3, side, side), dtype=torch.uint8)
    glancer, focuser = GlancerProgram(model).eval(), FocuserProgram(model).eval()
    with torch.no_grad():
        seen = dict(zip(("map", "feature", "logits"), glancer(frames), strict=True))
        focus = focuser(patches)
    used = glance_input(model)
    glance = {"glance": seen[used]} if used else {}
    if trimmed:
        classifier: nn.Module = ClipClassifier(model).eval()
        last = Program("classifier", classifier, {"focus": focus, **glance}, ("prediction",), not trimmed)
    else:
        given = {"focus": focus, "classifier_state": states["classifier_state"], **glance}
        outputs = ("prediction", "next_classifier_state")
        last = Program("classifier", ClassifierStep(model).eval(), given, outputs, not trimmed)
    given = {"map": seen["map"], "policy_state": states["policy_state"]}
    return [
        Program("glancer", glancer, {"frames": frames}, ("map", "feature", "logits"), not trimmed),
        Program("policy", PolicyProgram(model).eval(), given, ("corner", "action", "next_policy_state"), not trimmed),
        Program("focuser", focuser, {"patches": patches}, ("focus",), not trimmed),
        last,
    ]
