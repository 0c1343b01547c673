"""A model taken apart into four programs that run on their own: modules in plain tensors, for `torch.export` and ONNX.

Of a causal model: glancer, policy (one step), focuser, classifier (one step); states of the last step go into the next
one, and start as zeros. Of any other: the same four, once a clip; those of Uni-AdaFocus, which chooses frames too, are
in `uni_programs`. Frames go in as uint8: normalisation and the glancer's resizing are part of the programs.

Shapes: N frames of one or more clips, B clips, T glance and F focus frames of a clip, C colours, H W pixels, h w map
cells, P patch side, D features, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adafocus.inference.prediction import ClipFrames
from adafocus.interop.program import GlancerProgram, Normalised, Program, Programs, RunPart
from adafocus.interop.uni_programs import ChoicePrograms
from adafocus.models.adafocus import AdaFocus
from adafocus.models.classifier import MeanClassifier, running_mean
from adafocus.models.crop import crop_between
from adafocus.models.policies.policy import GridActions
from adafocus.models.prefix_classifier import TwoHeads
from adafocus.models.uni_adafocus import UniAdaFocus
from preprocessing.schema import UserError


class FocuserProgram(Normalised):
    """patches uint8 (N, C, P, P) -> focus (N, D)."""

    def __init__(self, model: AdaFocus) -> None:
        super().__init__(model)
        self.net = model.focuser

    def forward(self, patches: Tensor) -> Tensor:
        """As `AdaFocus.focus`."""
        return self.net(self.normalise(patches))


class BetweenPixelsFocuser(Normalised):
    """frames uint8 (N, C, H, W), corner float32 (N, 2) -> focus (N, D): it cuts the patches itself."""

    def __init__(self, model: AdaFocus) -> None:
        super().__init__(model)
        self.net, self.side = model.focuser, model.config.model.patch_size

    def forward(self, frames: Tensor, corner: Tensor) -> Tensor:
        """As `AdaFocusV2.crop` and `AdaFocus.focus`."""
        return self.net(self.normalise(crop_between(frames, corner, self.side)))


class PolicyProgram(nn.Module):
    """map, policy_state (B, width) -> corner (B, 2), action, next_policy_state.

    `map` is (B, D, h, w), or (T, D, h, w) of one clip where the policy acts once for the clip. The corner is int64, or
    float32 where patches lie between pixels. `action` holds the logarithms of the grid's probabilities (B, k*k), or
    the Gaussian's mean or the position (B, 2).
    """

    def __init__(self, model: AdaFocus) -> None:
        super().__init__()
        self.policy, self.side, self.joins = model.policy, model.config.data.crop, not model.acts_per_frame

    def forward(self, map: Tensor, policy_state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The most likely patch."""
        map_BSDhw = (map.flatten(0, 1)[None] if self.joins else map)[:, None]
        output = self.policy(map_BSDhw, policy_state[None])
        actions = output.actions
        shown = actions.log_probs_BSA if isinstance(actions, GridActions) else actions.mode()
        return self.policy.corners(actions.mode(), self.side)[:, 0], shown[:, 0], output.hidden_1BD[0]


class ClassifierStep(nn.Module):
    """focus (B, D), classifier_state, [glance] -> prediction (B, K), next_classifier_state.

    The state is a GRU's (B, width), or the sum and number of the logits so far (B, K + 1). `glance` is the glancer's
    feature (B, D) or its logits (B, K), see `Programs.glance_input`.
    """

    def __init__(self, model: AdaFocus) -> None:
        super().__init__()
        self.classifier = model.classifier
        self.concatenates, self.averages = model.concatenates, model.averages_glances

    def forward(self, focus: Tensor, classifier_state: Tensor, glance: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """After one more frame."""
        feature_BD = torch.cat([glance, focus], -1) if glance is not None and self.concatenates else focus
        if glance is not None and self.averages:  # a mean of sums is the sum of the means
            assert isinstance(self.classifier, MeanClassifier)
            logits_B1K = self.classifier.last(self.classifier.dropout(feature_BD))[:, None] + glance[:, None]
            logits_B1K, state_1BK = running_mean(logits_B1K, classifier_state[None])
        else:
            logits_B1K, state_1BK = self.classifier(feature_BD[:, None], classifier_state[None])
        return logits_B1K[:, 0], state_1BK[0]


class ClipClassifier(nn.Module):
    """focus (F, D), [glance (T, ...)] of a clip that is seen as a whole -> prediction (F, K) after each focus frame."""

    def __init__(self, model: AdaFocus) -> None:
        super().__init__()
        self.classifier = model.classifier
        self.concatenates, self.averages = model.concatenates, model.averages_glances

    def forward(self, focus: Tensor, glance: Tensor | None = None) -> Tensor:
        """As `AdaFocus.classify`."""
        if glance is not None and self.concatenates:
            focus = torch.cat([glance.mean(0, keepdim=True).expand(focus.shape[0], -1), focus], -1)
        logits_FK = self.classifier(focus[None])[0][0]
        if glance is None or not self.averages:
            return logits_FK
        if isinstance(self.classifier, TwoHeads):
            return logits_FK + self.classifier.glances(glance[None])[0]
        return logits_FK + glance.mean(0, keepdim=True)


class PatchPrograms(Programs):
    """Those of a model whose frames are given, and whose patches are of one size. Programs of causal models take any
    number of frames or clips."""

    def __init__(self, model: AdaFocus) -> None:
        self.model = model
        self.by = "frame" if model.is_causal else "clip"
        if model.concatenates or isinstance(model.classifier, TwoHeads):
            self.glance_input = "feature" if model.config.model.reuse_glance else None
        elif model.averages_glances:
            self.glance_input = "logits"

    def start_states(self, clips: int = 1) -> dict[str, Tensor]:
        """As `Programs.start_states`."""
        model = self.model
        states = {"policy_state": torch.zeros(clips, model.config.model.policy_hidden)}
        return states | {"classifier_state": model.classifier.start(clips)[0]} if model.is_causal else states

    def take_apart(self) -> list[Program]:
        """As `Programs.take_apart`."""
        model, causal = self.model, self.model.is_causal
        data, side = model.config.data, model.config.model.patch_size
        count, focused = (2, 2) if causal else (data.num_frames, data.num_focus_frames)
        states = self.start_states(2 if causal else 1)
        frames = torch.randint(256, (count, 3, data.crop, data.crop), dtype=torch.uint8)
        glancer = GlancerProgram(model).eval()
        if model.whole_pixels:
            focuser: nn.Module = FocuserProgram(model).eval()
            shown = {"patches": torch.randint(256, (focused, 3, side, side), dtype=torch.uint8)}
        else:
            focuser = BetweenPixelsFocuser(model).eval()
            whole = torch.randint(256, (focused, 3, data.crop, data.crop), dtype=torch.uint8)
            shown = {"frames": whole, "corner": torch.rand(focused, 2) * (data.crop - side)}
        with torch.no_grad():
            seen = dict(zip(self.outputs_of_glancer, glancer(frames), strict=True))
            focus = focuser(*shown.values())
        glance = {"glance": seen[self.glance_input]} if self.glance_input else {}
        if causal:
            given = {"focus": focus, "classifier_state": states["classifier_state"], **glance}
            outputs = ("prediction", "next_classifier_state")
            last = Program("classifier", ClassifierStep(model).eval(), given, outputs, causal)
        else:
            given = {"focus": focus, **glance}
            last = Program("classifier", ClipClassifier(model).eval(), given, ("prediction",), causal)
        given = {"map": seen["map"], "policy_state": states["policy_state"]}
        return [
            Program("glancer", glancer, {"frames": frames}, self.outputs_of_glancer, causal),
            Program("policy", PolicyProgram(model).eval(), given, ("corner", "action", "next_policy_state"), causal),
            Program("focuser", focuser, shown, ("focus",), causal),
            last,
        ]

    def run_clip(self, clip: ClipFrames, run: RunPart) -> Tensor:
        """As `Programs.run_clip`."""
        model, states, side = self.model, self.start_states(), self.model.config.model.patch_size
        seen = dict(zip(self.outputs_of_glancer, run("glancer", clip.glance_TCHW), strict=True))
        glance = [seen[self.glance_input]] if self.glance_input else []
        policy_state = states["policy_state"]

        def focus_on(frames_NCHW: Tensor, corner_12: Tensor) -> Tensor:
            if not model.whole_pixels:
                return run("focuser", frames_NCHW.contiguous(), corner_12.expand(len(frames_NCHW), 2).contiguous())[0]
            row, column = corner_12[0].tolist()
            return run("focuser", frames_NCHW[:, :, row : row + side, column : column + side].contiguous())[0]

        if not model.is_causal:
            corner, _, _ = run("policy", seen["map"], policy_state)
            return run("classifier", focus_on(clip.focus_TCHW, corner), *glance)[0]
        classifier_state, predictions = states["classifier_state"], list[Tensor]()
        for step, frame_CHW in enumerate(clip.focus_TCHW):
            corner, _, policy_state = run("policy", seen["map"][step : step + 1], policy_state)
            focus = focus_on(frame_CHW[None], corner)
            more = (each[step : step + 1] for each in glance)
            logits, classifier_state = run("classifier", focus, classifier_state, *more)
            predictions.append(logits)
        return torch.cat(predictions)


def programs_of(model: AdaFocus) -> Programs:
    """The programs of a model. Raises UserError for a method that cannot be exported."""
    if model.export_obstacle:
        raise UserError(f"method {model.config.method} cannot be exported: {model.export_obstacle}")
    return ChoicePrograms(model) if isinstance(model, UniAdaFocus) else PatchPrograms(model)
