"""Uni-AdaFocus (Wang et al., TPAMI 2024): which frames, where in them, how much of them, and how many of them.

All glances come first; from them a temporal policy chooses the focuser's frames among the clip's candidates, and a
spatial one a box for each, which is resized to a patch. What a patch is made of has no gradient: each policy learns
from the glancer, whose own predictions and map stand in for what the focuser would see.

Two kinds, by `model.action_per`, as of the second version. A box for every frame: a prefix classifier of the glances
and one of the focuser's frames behind them; a clip may stop after all glances and after every frame. One box for the
clip (Something-Something): the second version's heads; a clip may stop after the glances, whose auxiliary layer then
speaks, or not at all.

Shapes: as `adafocus.models.adafocus`, and: G glances, N candidates, F of them that the focuser sees, S boxes (F, or 1
for the whole clip), X exits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adafocus.config.schema import Config, ModelConfig
from adafocus.models.adafocus import Patches, Timer, untimed
from adafocus.models.adafocus_v2 import AdaFocusV2
from adafocus.models.crop import crop_resized
from adafocus.models.frame_source import FrameSource, at_places
from adafocus.models.outputs import Glance, Output, PatchChoice, State
from adafocus.models.policies.box_policy import BoxPolicy, actions_at, boxes_of, crop_map
from adafocus.models.policies.frame_policy import FramePolicy, choose_places
from adafocus.models.policies.policy import PatchPolicy, PolicyOutput
from adafocus.models.policies.position_policy import Positions
from adafocus.models.prefix_classifier import GlanceFirstClassifier, TwoHeads
from preprocessing.frame_choice import evaluation_frames


class UniPolicy(PatchPolicy):
    """What chooses frames, what chooses boxes, and the linear layer that judges the boxes in training."""

    def __init__(
        self,
        config: ModelConfig,
        num_features: int,
        num_channels: int,
        num_classes: int,
        map_size: tuple[int, int],
        glances_per_action: int,
    ) -> None:
        """`num_features` are of a glance, `num_channels` of its map: some networks widen it before they pool."""
        super().__init__()
        self.config = config
        self.frames = FramePolicy(num_features, config.temporal_channels)
        self.boxes = BoxPolicy(num_channels, config.policy_channels, map_size, glances_per_action)
        self.judge = nn.Linear(num_channels, num_classes)

    def forward(self, map_BSDhw: Tensor, hidden_1BD: Tensor | None = None) -> PolicyOutput:
        """Boxes of a clip's maps, all at once: (row, column, height, width) in [0, 1]. There is no recurrent state."""
        return PolicyOutput(Positions(self.boxes(map_BSDhw)), map_BSDhw.new_zeros(1, len(map_BSDhw), 0))

    def corners(self, action: Tensor, frame_size: int) -> Tensor:
        """Of the actions' boxes."""
        return boxes_of(action, frame_size, self.config.smallest_patch)[..., :2]


class UniAdaFocus(AdaFocusV2):
    """The four parts, of which the policy chooses frames too. The first version's settings are not read, nor
    `model.policy_hidden`."""

    policy: UniPolicy
    evenly_F: Tensor
    """Places of candidates that are evenly spread."""

    def __init__(self, config: Config, num_classes: int, *, pretrained: bool = True) -> None:
        """As `AdaFocus`."""
        super().__init__(config, num_classes, pretrained=pretrained)
        places = evaluation_frames(config.data.num_candidates, config.data.num_focus_frames)
        self.register_buffer("evenly_F", torch.tensor(places.tolist()), persistent=False)  # on the device beforehand

    def _build_policy(self, num_channels: int, map_size: tuple[int, int]) -> PatchPolicy:
        widths = (self.glancer.num_features, self.glancer.num_channels)
        return UniPolicy(self.config.model, *widths, self.num_classes, map_size, self.maps_per_state)

    def _build_classifier(self, num_features: int) -> Any:
        if not self.acts_per_frame:
            return super()._build_classifier(num_features)
        model, data = self.config.model, self.config.data
        features = (self.glancer.num_features, self.focuser.num_features)
        prefixes = (data.num_frames, data.num_focus_frames)
        sizes = (model.classifier_hidden, self.num_classes, prefixes, model.dropout)
        return GlanceFirstClassifier(features, *sizes, reuse_glances=model.reuse_glance)

    @property
    def actions_per_clip(self) -> int:
        """S."""
        return self.config.data.num_focus_frames if self.acts_per_frame else 1

    @property
    def exit_frames(self) -> tuple[int, ...]:
        """How many frames the focuser has seen at each exit: none at the first."""
        return (0, *super().exit_frames) if self.acts_per_frame else (0, self.config.data.num_focus_frames)

    @property
    def saves_early(self) -> bool:
        """A clip that stops after the glances needs no policy and no patch."""
        return True

    @property
    def most_frames(self) -> int | None:
        """Clips do not arrive frame by frame."""
        return None

    # Where to look.

    def weights(self, glance: Glance) -> Tensor:
        """How many looks each glance's stretch of the clip gets, as shares, float32 (B, G). Where there is one box for
        the clip the glancer learns nothing of it."""
        feature_BGD = glance.feature_BTD
        weight_BG: Tensor = self.policy.frames(feature_BGD if self.acts_per_frame else feature_BGD.detach())
        return weight_BG

    def actions(self, glance: Glance) -> Tensor:
        """The boxes' actions, one for each glance or one for the clip, without a gradient to the glancer."""
        action_BS4: Tensor = self.policy.boxes(glance.map_BTDhw.detach())
        return action_BS4

    def boxes_at(self, action_BS4: Tensor, places_BF: Tensor) -> Tensor:
        """Boxes (B, S, 4) in pixels of the frames at these places, or of the clip."""
        data = self.config.data
        if self.acts_per_frame:
            action_BS4 = actions_at(action_BS4, places_BF, data.num_candidates)
        return boxes_of(action_BS4, data.crop, self.config.model.smallest_patch)

    def judged_map(self, glance: Glance, action_BS4: Tensor) -> Tensor:
        """What the glancer's map says of the boxes by itself, logits_BK, with a gradient to the actions alone."""
        model = self.config.model
        sizes = (self.config.data.crop, model.smallest_patch, model.patch_size)
        map_BGDqq = crop_map(glance.map_BTDhw.detach(), action_BS4, *sizes)
        logits_BK: Tensor = self.policy.judge(map_BGDqq.mean((1, 3, 4)))
        return logits_BK

    def choose(
        self,
        glance: Glance,
        patches: Patches | Tensor = "policy",
        *,
        greedy: bool = True,
        generator: torch.Generator | None = None,
        state: State | None = None,
    ) -> PatchChoice:
        """Choose frames and boxes by the policy; or patches at random, in the centre, or as given, in frames that are
        evenly spread. Corners may be given for all candidates."""
        data = self.config.data
        if not isinstance(patches, Tensor) and patches == "policy":
            places_BF = choose_places(self.weights(glance), data.num_candidates, data.num_focus_frames)
            action_BS4 = self.actions(glance)
            boxes_BS4 = self.boxes_at(action_BS4, places_BF)
            return PatchChoice(boxes_BS4[..., :2], action_BS4, places_BF=places_BF, sizes_BS2=boxes_BS4[..., 2:])
        chosen = super().choose(glance, patches, greedy=greedy, generator=generator)
        corners_BS2 = chosen.corners_BS2
        if corners_BS2.shape[1] == data.num_candidates != self.actions_per_clip:
            corners_BS2 = corners_BS2[:, self.evenly_F]
        return PatchChoice(corners_BS2, places_BF=self.evenly_F.expand(len(corners_BS2), -1))

    def whole_frames(self, focus_frames: Tensor) -> Tensor:
        """Of the candidates, some that are evenly spread."""
        return focus_frames[:, self.evenly_F]

    def action_shape(self, glance: Glance) -> tuple[int, int]:
        """(B, S)."""
        return len(glance.feature_BTD), self.actions_per_clip

    def crop_chosen(self, frames_BTCHW: Tensor, choice: PatchChoice) -> Tensor:
        """The patches that were chosen, of the candidates, or of the chosen frames alone."""
        if frames_BTCHW.shape[1] == self.config.data.num_candidates:
            assert choice.places_BF is not None
            frames_BTCHW = at_places(frames_BTCHW, choice.places_BF)
        return self.cut(frames_BTCHW, self._boxes(choice))

    def _boxes(self, choice: PatchChoice) -> Tensor:
        corners_BS2 = choice.corners_BS2.float()
        side = self.config.model.patch_size
        sizes_BS2 = torch.full_like(corners_BS2, side) if choice.sizes_BS2 is None else choice.sizes_BS2
        return torch.cat([corners_BS2, sizes_BS2], -1)

    def cut(self, frames_BFCHW: Tensor, boxes_BS4: Tensor) -> Tensor:
        """Patches of the frames' boxes, normalised patches_BFCPP; one box a frame, or one for all of a clip's."""
        frames_NCHW = self.prepare(frames_BFCHW).flatten(0, 1)
        boxes_N4 = boxes_BS4.expand(*frames_BFCHW.shape[:2], 4).flatten(0, 1)
        patches_NCPP = crop_resized(frames_NCHW, boxes_N4, self.config.model.patch_size)
        return patches_NCPP.unflatten(0, frames_BFCHW.shape[:2])

    # What is said of it.

    def prefixes(self, glance: Glance, focus_BTD: Tensor) -> Tensor:
        """logits_BTK of every prefix of the glances, then of the focuser's frames behind them; where there is one box
        for the clip, only that of the clip."""
        if not self.acts_per_frame:
            return self._end(glance, focus_BTD)
        assert isinstance(self.classifier, GlanceFirstClassifier)
        glance_BGK, maxima_1BH = self.classifier.glance(glance.feature_BTD)
        return torch.cat([glance_BGK, self.classifier(focus_BTD, None, maxima_1BH)[0]], 1)

    def _end(self, glance: Glance, focus_BTD: Tensor) -> Tensor:
        """logits_B1K of a clip with one box."""
        return self.clip_glance(glance) + self.classifier(focus_BTD)[0][:, -1:]

    def clip_glance(self, glance: Glance) -> Tensor:
        """What the glances add to the clip's logits; with a box for every frame that is in the classifier."""
        assert isinstance(self.classifier, TwoHeads)
        return super().clip_glance(glance) if self.averages_glances else glance.logits_BTK.new_zeros(1, 1, 1)

    def classify_from(self, glance: Glance, focus_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        """logits_BXK of all exits."""
        if self.acts_per_frame:
            return self.prefixes(glance, focus_BTD)[:, self.config.data.num_frames - 1 :], State()
        return torch.cat([self._first(glance)[0], self._end(glance, focus_BTD)], 1), State()

    def _first(self, glance: Glance) -> tuple[Tensor, Tensor | None]:
        """logits_B1K of the exit after the glances, and what later ones see of them."""
        if not self.acts_per_frame:
            return glance.logits_BTK.mean(1, keepdim=True), None
        assert isinstance(self.classifier, GlanceFirstClassifier)
        logits_BGK, maxima_1BH = self.classifier.glance(glance.feature_BTD)
        return logits_BGK[:, -1:], maxima_1BH

    def advance(
        self, frames: FrameSource, exits: range, state: State, patches: Patches = "policy", timer: Timer = untimed
    ) -> Output:
        """Exit 0 needs the glances alone; the policies run for the first one behind it."""
        logits: list[Tensor] = []
        glance, maxima_1BH, count = state.glance, state.glances, self.config.data.num_focus_frames
        if glance is None:
            glance_BGCHW = frames.glances(range(self.config.data.num_frames))
            with timer("glance"):
                glance = self.glance(glance_BGCHW)
            with timer("classify"):
                first_B1K, maxima_1BH = self._first(glance)
            logits.append(first_B1K)
        choice, classifier = state.choice, state.classifier
        looks = range(0)
        shown = self._part(choice, glance, looks)
        if exits.stop > 1:
            looks = range(max(exits.start, 1) - 1, exits.stop - 1) if self.acts_per_frame else range(count)
            with timer("policy"):
                choice = choice or self.choose(glance, patches)
            shown = self._part(choice, glance, looks)
            assert shown.places_BF is not None
            chosen_BfCHW = frames.looks(shown.places_BF)
            with timer("policy"):
                patches_BfCPP = self.cut(chosen_BfCHW, self._boxes(shown))
            with timer("focus"):
                focus_BfD = self.focus(patches_BfCPP)
            with timer("classify"):
                if self.acts_per_frame:
                    assert isinstance(self.classifier, GlanceFirstClassifier)
                    more_BfK, classifier = self.classifier(focus_BfD, classifier, maxima_1BH)
                else:
                    more_BfK = self._end(glance, focus_BfD)
            logits.append(more_BfK)
        logits_BXK = torch.cat(logits, 1)
        kept = glance if choice is None else glance.without_map()  # by far the most of it
        after = State(classifier=classifier, glances=maxima_1BH, glance=kept, choice=choice)
        corners_BT2 = shown.corners_BS2.expand(-1, len(looks), 2)
        return Output(logits_BXK, logits_BXK[:, -1], corners_BT2, glance, shown, after)

    def _part(self, choice: PatchChoice | None, glance: Glance, looks: range) -> PatchChoice:
        """Of a clip's choice, that of some of the looks."""
        if choice is None or choice.places_BF is None:
            nowhere = glance.feature_BTD.new_zeros(len(glance.feature_BTD), 0, 2)
            return PatchChoice(nowhere, places_BF=nowhere[..., 0].long(), sizes_BS2=nowhere)
        part = slice(looks.start, looks.stop)
        boxes = part if self.acts_per_frame else slice(None)
        sizes_BS2 = None if choice.sizes_BS2 is None else choice.sizes_BS2[:, boxes]
        places_BF = choice.places_BF[:, part]
        return PatchChoice(choice.corners_BS2[:, boxes], choice.action, places_BF=places_BF, sizes_BS2=sizes_BS2)

    def counted_modules(self, part: str) -> tuple[str, ...]:
        """Names of the modules that compute a part's share of the predictions; auxiliary layers are none, but for the
        glancer's where it speaks at the first exit."""
        if part == "policy":
            return ("policy.frames", "policy.boxes")
        if part == "glancer" and not self.acts_per_frame:
            return ("glancer.body", "glancer.pooling", "glancer.last")
        if part == "classifier" and self.acts_per_frame:
            return ("classifier.glances", "classifier.looks")
        return super().counted_modules(part)
