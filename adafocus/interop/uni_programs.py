"""The parts of a Uni-AdaFocus, as programs: frames and boxes are chosen once, behind all glances.

Shapes: G glances, N candidate frames, F of them that the focuser sees, S boxes (F, or 1 for the whole clip), X exits,
and as in `adafocus.interop.programs`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adafocus.inference.prediction import ClipFrames
from adafocus.interop.program import GlancerProgram, Normalised, Program, Programs, RunPart
from adafocus.models.crop import crop_resized
from adafocus.models.policies.box_policy import actions_at, boxes_of
from adafocus.models.policies.frame_policy import choose_places
from adafocus.models.prefix_classifier import GlanceFirstClassifier, TwoHeads
from adafocus.models.uni_adafocus import UniAdaFocus


class ChoiceProgram(nn.Module):
    """map (G, D, h, w), feature (G, D) of a clip -> places int64 (F,) of frames among its candidates, rising, and boxes
    float32 (S, 4): top, left, height, width in pixels."""

    def __init__(self, model: UniAdaFocus) -> None:
        super().__init__()
        self.frames, self.boxes = model.policy.frames, model.policy.boxes
        self.data, self.smallest = model.config.data, model.config.model.smallest_patch
        self.acts_per_frame = model.acts_per_frame

    def forward(self, map: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
        """As `UniAdaFocus.choose`."""
        candidates = self.data.num_candidates
        places_1F = choose_places(self.frames(feature[None]), candidates, self.data.num_focus_frames)
        action_1S4 = self.boxes(map[None])
        if self.acts_per_frame:
            action_1S4 = actions_at(action_1S4, places_1F, candidates)
        return places_1F[0], boxes_of(action_1S4, self.data.crop, self.smallest)[0]


class BoxFocuser(Normalised):
    """frames uint8 (F, C, H, W), boxes float32 (F, 4) -> focus (F, D): it cuts and resizes the patches itself."""

    def __init__(self, model: UniAdaFocus) -> None:
        super().__init__(model)
        self.net, self.side = model.focuser, model.config.model.patch_size

    def forward(self, frames: Tensor, boxes: Tensor) -> Tensor:
        """As `UniAdaFocus.cut` and `AdaFocus.focus`."""
        return self.net(crop_resized(self.normalise(frames), boxes, self.side))


class ExitsClassifier(nn.Module):
    """focus (F, D), feature (G, D) -> prediction (X, K) of every exit: after the glances, then after every frame."""

    def __init__(self, model: UniAdaFocus) -> None:
        super().__init__()
        assert isinstance(model.classifier, GlanceFirstClassifier)
        self.classifier = model.classifier

    def forward(self, focus: Tensor, feature: Tensor) -> Tensor:
        """As `UniAdaFocus.classify_from`."""
        glance_1GK, maxima_11H = self.classifier.glance(feature[None])
        return torch.cat([glance_1GK[0, -1:], self.classifier(focus[None], None, maxima_11H)[0][0]])


class ClipExits(nn.Module):
    """focus (F, D), logits (G, K), [feature (G, D)] -> prediction (2, K): of the glances' own last layer, and of the
    whole clip."""

    def __init__(self, model: UniAdaFocus) -> None:
        super().__init__()
        assert isinstance(model.classifier, TwoHeads)
        self.classifier = model.classifier

    def forward(self, focus: Tensor, logits: Tensor, feature: Tensor | None = None) -> Tensor:
        """Likewise."""
        end_1K = self.classifier(focus[None])[0][0, -1:]
        if feature is not None:
            end_1K = end_1K + self.classifier.glances(feature[None])[0]
        return torch.cat([logits.mean(0, keepdim=True), end_1K])


class ChoicePrograms(Programs):
    """Those of a Uni-AdaFocus, each of one clip at a time. The classifier takes the glancer's outputs under their own
    names."""

    by = "choice"

    def __init__(self, model: UniAdaFocus) -> None:
        self.model = model

    def take_apart(self) -> list[Program]:
        """As `Programs.take_apart`."""
        model, data = self.model, self.model.config.data

        def noise(count: int) -> Tensor:
            return torch.randint(256, (count, 3, data.crop, data.crop), dtype=torch.uint8)

        glancer, policy, focuser = (kind(model).eval() for kind in (GlancerProgram, ChoiceProgram, BoxFocuser))
        shown = {"frames": noise(data.num_frames)}
        with torch.no_grad():
            seen = dict(zip(self.outputs_of_glancer, glancer(*shown.values()), strict=True))
            _, boxes_S4 = policy(seen["map"], seen["feature"])
            boxes_F4 = boxes_S4.expand(data.num_focus_frames, 4).clone()
            looked = {"frames": noise(data.num_focus_frames), "boxes": boxes_F4}
            focus = focuser(*looked.values())
        last = ExitsClassifier(model) if model.acts_per_frame else ClipExits(model)
        chosen = {name: seen[name] for name in ("map", "feature")}
        known = {"focus": focus, **{name: seen[name] for name in self._exit_inputs()}}
        return [
            Program("glancer", glancer, shown, self.outputs_of_glancer, any_number=False),
            Program("policy", policy, chosen, ("places", "boxes"), any_number=False),
            Program("focuser", focuser, looked, ("focus",), any_number=False),
            Program("classifier", last.eval(), known, ("prediction",), any_number=False),
        ]

    def run_clip(self, clip: ClipFrames, run: RunPart) -> Tensor:
        """As `Programs.run_clip`."""
        seen = dict(zip(self.outputs_of_glancer, run("glancer", clip.glance_TCHW), strict=True))
        places_F, boxes_S4 = run("policy", seen["map"], seen["feature"])
        boxes_F4 = boxes_S4.expand(len(places_F), 4).contiguous()
        (focus,) = run("focuser", clip.focus_TCHW[places_F], boxes_F4)
        return run("classifier", focus, *(seen[name] for name in self._exit_inputs()))[0]

    def _exit_inputs(self) -> tuple[str, ...]:
        """Which of the glancer's outputs the classifier takes, behind the focuser's."""
        if self.model.acts_per_frame:
            return ("feature",)
        return ("logits", "feature") if self.model.averages_glances else ("logits",)
