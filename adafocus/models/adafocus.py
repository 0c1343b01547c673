"""AdaFocus: frames in; logits of every exit, and where it looked, out. Glance -> choose -> crop -> focus -> classify.

The chain is written once, in `AdaFocus.look` and `AdaFocus.recognise`; training, evaluation, timing, single videos and
frames that arrive one by one all go through it. Three settings say what it is fed: do both networks see the same frames
(`data.focus_frames`), do they shift features in time (`model.temporal_shift`), and does the policy act for every frame
or once for the clip (`model.action_per`). The published networks for long videos share frames and act per frame; those
for Something-Something do neither, and shift.

No method reads anything back from the device, and none loops over clips or frames.

Shapes: B clips, T frames, S actions of a clip (T, or 1 for the whole clip), C colours, H W pixels, h w map cells,
P patch side, D features, K classes. An exit is a prediction that the method can stop at: one after every focus frame.
"""

from __future__ import annotations

import contextlib
import copy
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adafocus.config.schema import Config, ModelConfig
from adafocus.config.validation import check_model
from adafocus.models.backbones import Backbone, build_backbone
from adafocus.models.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD
from adafocus.models.backbones.sides import check_sides
from adafocus.models.classifier import (
    Classifier,
    GRUClassifier,
    MeanClassifier,
    build_classifier,
    running_mean,
)
from adafocus.models.crop import centre_corners, crop_patches, random_corners
from adafocus.models.frame_source import FrameSource
from adafocus.models.outputs import Glance, Look, Output, PatchChoice, State
from adafocus.models.policies.policy import PatchPolicy, Policy

Patches = Literal["policy", "random", "centre"]
"""Where patches come from: the policy, uniformly at random, or the centre."""

PARTS = ("glancer", "policy", "focuser", "classifier")
"""f_G, pi, f_L and f_C of the paper, in the order in which they run."""

Timer = Callable[[str], AbstractContextManager[None]]
"""Entered around each part of the chain, by name: glance, policy, focus, classify."""


def untimed(part: str) -> AbstractContextManager[None]:
    """The timer that does nothing."""
    return contextlib.nullcontext()


class AdaFocus(nn.Module):
    """The paper's four parts: glancer (f_G), focuser (f_L), policy (pi), classifier (f_C)."""

    whole_pixels: ClassVar[bool] = True
    """Are corners of patches int64, whole pixels, rather than float32 with a gradient?"""
    mean: Tensor
    std: Tensor

    def __init__(self, config: Config, num_classes: int, *, pretrained: bool = True) -> None:
        """`pretrained` False ignores the configured initial weights, as when a checkpoint follows.

        Raises UserError for settings and weights that do not fit together.
        """
        super().__init__()
        data, model = check_model(config).data, config.model
        self.config = config
        self.num_classes = num_classes
        self.shares_frames = data.shares_frames
        self.acts_per_frame = model.action_per == "frame"
        shift = model.temporal_shift
        seed = int(torch.randint(2**62, (), device="cpu"))
        with part_seed(seed, "glancer"):
            self.glancer = self._network("glancer", data.num_frames if shift else None, pretrained=pretrained)
        with part_seed(seed, "focuser"):
            self.focuser = self._network("focuser", data.num_focus_frames if shift else None, pretrained=pretrained)
        self.averages_glances = model.reuse_glance and self.averages_logits
        self.concatenates = model.reuse_glance and not self.averages_logits
        with part_seed(seed, "policy"):
            size = map_size(self.glancer, model.glance_size, data.num_frames if shift else 1)
            self.policy = self._build_policy(self.glancer.num_channels * self.maps_per_state, size)
        with part_seed(seed, "classifier"):
            reused = self.glancer.num_features if self.concatenates else 0
            self.classifier = self._build_classifier(reused + self.focuser.num_features)
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, 255 * torch.tensor(values).view(3, 1, 1), persistent=False)

    def _network(self, part: str, shift_frames: int | None, *, pretrained: bool) -> Backbone:
        setting, model, data = f"{part}_weights", self.config.model, self.config.data
        weights = getattr(model, setting) if pretrained else "none"
        network = build_backbone(
            getattr(model, part),
            self.num_classes,
            weights,
            dropout=self.head_dropout,
            shift_frames=shift_frames,
            stride=model.glance_stride if part == "glancer" else 0,
            setting=f"model.{setting}",
        )
        seen = {"model.patch_size": model.patch_size, "data.crop": data.crop}  # whole frames in pretrain
        sides = {"model.glance_size": model.glance_size} if part == "glancer" else seen
        check_sides(getattr(model, part), network, sides)
        return network

    def _build_policy(self, num_channels: int, map_size: tuple[int, int]) -> PatchPolicy:
        return Policy(self.config.model, num_channels, map_size)

    def _build_classifier(self, num_features: int) -> Classifier:
        return build_classifier(self.config.model, num_features, self.num_classes)

    @property
    def averages_logits(self) -> bool:
        """Is a prediction the mean of the frames' own, rather than one of all that was seen?"""
        return self.config.model.classifier == "average"

    @property
    def maps_per_state(self) -> int:
        """How many of the glancer's maps make one state of the policy."""
        return 1 if self.acts_per_frame else self.config.data.num_frames

    @property
    def head_dropout(self) -> float | None:
        """Before the networks' own last layers; None: as the networks have it."""
        return self.config.model.head_dropout

    @property
    def is_causal(self) -> bool:
        """Does an exit need no frame behind it, so that frames may come one by one and a prefix costs its share?"""
        return self.shares_frames and self.acts_per_frame and not self.config.model.temporal_shift

    @property
    def actions_per_clip(self) -> int:
        """S of a whole clip."""
        return self.config.data.num_frames // self.maps_per_state

    @property
    def exit_frames(self) -> tuple[int, ...]:
        """How many frames the focuser has seen at each exit."""
        return tuple(range(1, self.config.data.num_focus_frames + 1))

    @property
    def saves_early(self) -> bool:
        """Does a clip that stops at an earlier exit take less compute?"""
        return self.is_causal

    @property
    def planned_looks(self) -> float:
        """Share of the policy's patches that the focuser is meant to look at, on average."""
        return 1.0

    @property
    def export_obstacle(self) -> str:
        """Why the model cannot be taken apart into programs of fixed shapes; empty if it can."""
        return ""

    @property
    def most_frames(self) -> int | None:
        """Most frames of a clip that arrive one by one; None: any number."""
        return None

    # The chain.

    def forward(
        self,
        glance_frames: Tensor,
        focus_frames: Tensor,
        patches: Patches | Tensor = "policy",
        *,
        greedy: bool = True,
        generator: torch.Generator | None = None,
        state: State | None = None,
        timer: Timer = untimed,
    ) -> Output:
        """The whole method on uint8 (or prepared) frames BTCHW; where the networks share frames pass them twice.

        `patches` may be corners int64 (B, S, 2) too. `state` is that of the clip's earlier frames, where the model is
        causal. Otherwise as `look`.
        """
        state = state or State()
        seen = self.look(
            glance_frames, focus_frames, patches, greedy=greedy, generator=generator, state=state, timer=timer
        )
        with timer("focus"):
            focus_BTD = self.focus_chosen(seen)
        with timer("classify"):
            logits_BTK, after = self.classify_from(seen.glance, focus_BTD, state)
        if seen.choice.policy is not None:
            policy_1BD, gate_1B3 = seen.choice.policy.hidden_1BD, seen.choice.gate_1B3
            after = State(policy_1BD, after.classifier, after.glances, gate_1B3)
        looks = focus_frames.shape[1] if seen.choice.places_BF is None else seen.choice.places_BF.shape[1]
        corners_BT2 = seen.choice.corners_BS2.expand(len(focus_frames), looks, 2)
        return Output(logits_BTK, logits_BTK[:, -1], corners_BT2, seen.glance, seen.choice, after)

    def look(
        self,
        glance_frames: Tensor,
        focus_frames: Tensor,
        patches: Patches | Tensor = "policy",
        *,
        greedy: bool = True,
        generator: torch.Generator | None = None,
        state: State | None = None,
        timer: Timer = untimed,
    ) -> Look:
        """Glance, choose and crop. The policy acts by its mode (`greedy`) or by a sample of `generator`."""
        with timer("glance"):
            glance = self.glance(glance_frames)
        with timer("policy"):
            choice = self.choose(glance, patches, greedy=greedy, generator=generator, state=state)
            patches_BTCPP = self.crop_chosen(focus_frames, choice)
        return Look(glance, choice, patches_BTCPP)

    def recognise(self, glance: Glance, patches_BTCPP: Tensor) -> Tensor:
        """Focus and classify: logits_BTK of every exit."""
        return self.classify(glance, self.focus(patches_BTCPP))

    def advance(
        self, frames: FrameSource, exits: range, state: State, patches: Patches = "policy", timer: Timer = untimed
    ) -> Output:
        """A clip's next exits, and no more than they need: for models that save by stopping early. `exits` follow those
        that `state` is behind."""
        seen = frames.glances(exits)
        return self(seen, seen, patches, state=state, timer=timer)

    def whole_frames(self, focus_frames: Tensor) -> Tensor:
        """Of the frames that the focuser is offered, those that it sees without a choice."""
        return focus_frames

    # Its links.

    def prepare(self, frames: Tensor) -> Tensor:
        """uint8 (B, T, C, H, W) -> float32, ImageNet-normalised, channels last; float frames pass as they are."""
        if frames.is_floating_point():
            return frames
        images_NCHW = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return normalise(images_NCHW, self.mean, self.std).unflatten(0, frames.shape[:2])

    def glance(self, frames_BTCHW: Tensor) -> Glance:
        """All frames through the glancer, at `glance_size`."""
        images_NCHW = self.prepare(frames_BTCHW).flatten(0, 1)
        parts = glance_at(self.glancer, images_NCHW, self.config.model)
        return Glance(*(part.unflatten(0, frames_BTCHW.shape[:2]) for part in parts))

    def states(self, glance: Glance) -> Tensor:
        """The policy's input, map_BSDhw: frame by frame, or all maps of the clip one behind the other as channels."""
        map_BTDhw = glance.map_BTDhw
        return map_BTDhw if self.acts_per_frame else map_BTDhw.flatten(1, 2).unsqueeze(1)

    def choose(
        self,
        glance: Glance,
        patches: Patches | Tensor = "policy",
        *,
        greedy: bool = True,
        generator: torch.Generator | None = None,
        state: State | None = None,
    ) -> PatchChoice:
        """Choose patches: by the policy (its mode, or a sample), uniformly at random, the centre, or those given."""
        if isinstance(patches, Tensor):
            return PatchChoice(patches)
        sizes = (self.config.data.crop, self.config.model.patch_size)
        if patches == "policy":
            output = self.policy(self.states(glance), state.policy if state else None)
            action = output.actions.mode() if greedy else output.actions.sample(generator)
            return PatchChoice(self.policy.corners(action, sizes[0]), action, output)
        shape, device = self.action_shape(glance), glance.feature_BTD.device
        if patches == "random":
            return PatchChoice(random_corners(shape, *sizes, device=device, generator=generator))
        if patches != "centre":
            raise ValueError(f"patches are {', '.join(get_args(Patches))} or corners, not {patches!r}")
        return PatchChoice(centre_corners(shape, *sizes, device=device))

    def action_shape(self, glance: Glance) -> tuple[int, int]:
        """(B, S)."""
        batch, frames = glance.feature_BTD.shape[:2]
        return batch, frames // self.maps_per_state

    def crop(self, frames_BTCHW: Tensor, corners_BS2: Tensor) -> Tensor:
        """One patch per frame, patches_BTCPP of the frames' dtype; S is T, or 1 for all frames of a clip."""
        batch, frames = frames_BTCHW.shape[:2]
        corners_N2 = corners_BS2.expand(batch, frames, 2).flatten(0, 1)
        patches_NCPP = crop_patches(frames_BTCHW.flatten(0, 1), corners_N2, self.config.model.patch_size)
        return patches_NCPP.unflatten(0, (batch, frames))

    def crop_chosen(self, frames_BTCHW: Tensor, choice: PatchChoice) -> Tensor:
        """The patches that were chosen, of frames that the focuser looks at: here all of them."""
        return self.crop(frames_BTCHW, choice.corners_BS2)

    def focus_chosen(self, seen: Look) -> Tensor:
        """What the focuser makes of them: feature_BTD."""
        return self.focus(seen.patches_BTCPP)

    def focus(self, patches_BTCPP: Tensor) -> Tensor:
        """All patches through the focuser: feature_BTD."""
        feature_ND = self.focuser(self.prepare(patches_BTCPP).flatten(0, 1))
        return feature_ND.unflatten(0, patches_BTCPP.shape[:2])

    def features(self, glance: Glance, focus_BTD: Tensor) -> Tensor:
        """The classifier's input: with the glance of the same frame, or with the mean of frames of another number."""
        if not self.concatenates:
            return focus_BTD
        glance_BTD = glance.feature_BTD
        if not self.shares_frames:
            glance_BTD = glance_BTD.mean(1, keepdim=True).expand(-1, focus_BTD.shape[1], -1)
        return torch.cat([glance_BTD, focus_BTD], -1)

    def classify(self, glance: Glance, focus_BTD: Tensor) -> Tensor:
        """logits_BTK of every exit."""
        return self.classify_from(glance, focus_BTD, State())[0]

    def classify_from(self, glance: Glance, focus_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        """As `classify`, behind a clip's earlier frames, and the state after these."""
        logits_BTK, classifier = self.classifier(self.features(glance, focus_BTD), state.classifier)
        share_BTK, glances = self._glancer_share(glance, state.glances)
        return logits_BTK + share_BTK, State(None, classifier, glances)

    def _glancer_share(self, glance: Glance, state: Tensor | None) -> tuple[Tensor | float, Tensor | None]:
        """What the glancer's own prediction adds where logits are averaged: its mean over the frames so far."""
        if not self.averages_glances:
            return 0.0, None
        if not self.shares_frames:  # then it has seen the whole clip before the focuser sees anything
            return self.clip_glance(glance), None
        return running_mean(glance.logits_BTK, state)

    def clip_glance(self, glance: Glance) -> Tensor:
        """The glancer's own prediction of the whole clip, logits_B1K."""
        return glance.logits_BTK.mean(1, keepdim=True)

    def counted_modules(self, part: str) -> tuple[str, ...]:
        """Names of the modules that compute a part's share of the prediction, for counts of multiply-adds."""
        if part != "glancer":
            return (part,)
        # Nobody reads the glancer's own prediction, unless it is averaged with the focuser's.
        seen = ("glancer.body", "glancer.pooling")
        return (*seen, "glancer.last") if self.averages_glances else seen

    # What reinforcement asks.

    def decisions(self, logits_BTK: Tensor) -> Tensor:
        """Of the exits' logits, those that follow an action: every one, or only the whole clip's. logits_BSK."""
        return logits_BTK if self.acts_per_frame else logits_BTK[:, -1:]

    def counterfactual(self, glance: Glance, taken_BTD: Tensor, other_BTD: Tensor) -> Tensor:
        """logits_BSK after each action, had only that one led to the other focus features."""
        if not self.acts_per_frame:
            return self.decisions(self.classify(glance, other_BTD))
        assert isinstance(self.classifier, GRUClassifier | MeanClassifier)
        taken, other = self.features(glance, taken_BTD), self.features(glance, other_BTD)
        return self.classifier.counterfactual(taken, other) + self._glancer_share(glance, None)[0]

    def blank(self, glance: Glance) -> Tensor:
        """The focus feature_BTD of a patch of zeros (after normalisation), from one clip's pass only."""
        frames, side = self.config.data.num_focus_frames, self.config.model.patch_size
        feature_1TD = self.focus(glance.feature_BTD.new_zeros(1, frames, 3, side, side))
        return feature_1TD.expand(len(glance.feature_BTD), -1, -1)


def normalise(images_NCHW: Tensor, mean_C11: Tensor, std_C11: Tensor) -> Tensor:
    """uint8 -> float32 of about zero mean and unit spread, in the same memory format."""
    return images_NCHW.float().sub_(mean_C11).div_(std_C11)


def glance_at(glancer: Backbone, images_NCHW: Tensor, model: ModelConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised images at `glance_size` pixels through the glancer -> map_NDhw, feature_ND, logits_NK."""
    size = (model.glance_size, model.glance_size)
    if images_NCHW.shape[-2:] != size:
        corners = model.glance_resize == "corners"
        how = {"align_corners": True} if corners else {"antialias": True}
        images_NCHW = F.interpolate(images_NCHW, size, mode="bilinear", **how)
    features = glancer.features(images_NCHW)
    feature_ND = glancer.pool(features)
    return glancer.to_map(features), feature_ND, glancer.head(feature_ND)


@contextlib.contextmanager
def part_seed(seed: int, part: str) -> Iterator[None]:
    """Random numbers of one part's initial weights: they do not depend on how the other parts are made."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed((seed + zlib.crc32(part.encode())) % 2**63)
        yield


def map_size(glancer: Backbone, side: int, num_frames: int) -> tuple[int, int]:
    """(h, w) of the glancer's map of a square image, without computing it."""
    shadow = copy.deepcopy(glancer).to("meta").eval()
    shape = shadow.to_map(shadow.features(torch.empty(num_frames, 3, side, side, device="meta"))).shape
    return shape[-2], shape[-1]
