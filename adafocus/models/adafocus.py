"""AdaFocus: frames in; logits of every prefix, and where it looked, out. Glance -> policy -> crop -> focus -> classify.

Two families share one interface. *Untrimmed*: every frame is glanced at and gets a patch of its own. *Trimmed*: both
networks shift features in time, glance and focus frames differ in number, and one patch position serves the whole clip.

No method reads anything back from the device, and none loops over clips or frames.

Shapes: B clips, T frames, S actions of a clip (T untrimmed, 1 trimmed), C colours, H W pixels, h w map cells, P patch
side, D features, K classes.
"""

from __future__ import annotations

import contextlib
import copy
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adafocus.config.schema import Config
from adafocus.models.backbones import Backbone, build_backbone
from adafocus.models.classifier import build_classifier, prefix_mean
from adafocus.models.crop import centre_corners, check_sizes, crop_patches, random_corners
from adafocus.models.policy import Policy, PolicyOutput
from preprocessing.schema import UserError

Patches = Literal["policy", "random", "centre"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Glance:
    """What the glancer sees of a clip."""

    map_BTDhw: Tensor
    feature_BTD: Tensor
    logits_BTK: Tensor
    """Its own prediction per frame, from its own last layer."""


@dataclass(frozen=True, slots=True)
class Act:
    """Where to look. `action` and `policy` are None unless the policy chose."""

    corners_BS2: Tensor
    """int64 (row, column) of the patch's first pixel."""
    action: Tensor | None = None
    policy: PolicyOutput | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """Of a whole pass."""

    logits_BTK: Tensor
    """After frame 1, 2, ..., T."""
    prediction_BK: Tensor
    """The last prefix."""
    corners_BT2: Tensor
    """int64, one patch per focus frame."""
    glance: Glance
    act: Act


class AdaFocus(nn.Module, ABC):
    """What both families share; each fills in the abstract methods.

    Parts: glancer (f_G), focuser (f_L), policy (pi), classifier (f_C).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: Config, num_classes: int, *, pretrained: bool = True) -> None:
        """`pretrained` False ignores the configured initial weights, as when a checkpoint follows."""
        super().__init__()
        check_frames(config)
        self.config = config
        self.num_classes = num_classes
        shift_g, shift_l, dropout = self.network_options(config)
        model = config.model
        seed = int(torch.randint(2**62, (), device="cpu"))
        with part_seed(seed, "glancer"):
            self.glancer = self._network("glancer", dropout, shift_g, pretrained=pretrained)
        with part_seed(seed, "focuser"):
            self.focuser = self._network("focuser", dropout, shift_l, pretrained=pretrained)
        with part_seed(seed, "policy"):
            size = map_size(self.glancer, model.glance_size, shift_g or 1)
            self.policy = Policy(model, self.glancer.num_features * self.maps_per_state(config), size)
        with part_seed(seed, "classifier"):
            self.concatenates = model.reuse_glance and model.classifier != "average"
            self.averages_glances = model.reuse_glance and model.classifier == "average"
            reused = self.glancer.num_features if self.concatenates else 0
            self.classifier = build_classifier(model, reused + self.focuser.num_features, num_classes)
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, 255 * torch.tensor(values).view(3, 1, 1), persistent=False)

    def _network(self, part: str, dropout: float | None, shift: int | None, *, pretrained: bool) -> Backbone:
        setting = f"{part}_weights"
        name, weights = getattr(self.config.model, part), getattr(self.config.model, setting) if pretrained else "none"
        return build_backbone(
            name, self.num_classes, weights, dropout=dropout, shift_frames=shift, setting=f"model.{setting}"
        )

    # What the families differ in.

    @staticmethod
    @abstractmethod
    def network_options(config: Config) -> tuple[int | None, int | None, float | None]:
        """Frames per clip that glancer and focuser shift over (None: no shift), dropout of their own heads."""

    @staticmethod
    @abstractmethod
    def maps_per_state(config: Config) -> int:
        """How many of the glancer's maps make one state of the policy."""

    @abstractmethod
    def states(self, glance: Glance) -> Tensor:
        """The policy's input, map_BSDhw."""

    @abstractmethod
    def classify(self, glance: Glance, focus_BTD: Tensor) -> Tensor:
        """logits_BTK of every prefix of the focus frames."""

    @abstractmethod
    def decisions(self, logits_BTK: Tensor) -> Tensor:
        """Of the prefixes' logits, those that follow an action: logits_BSK."""

    @abstractmethod
    def counterfactual(self, glance: Glance, taken_BTD: Tensor, other_BTD: Tensor) -> Tensor:
        """logits_BSK after each action, had only that one led to the other focus features."""

    # What they share.

    def prepare(self, frames: Tensor) -> Tensor:
        """uint8 (B, T, C, H, W) -> float32, ImageNet-normalised, channels last; float frames pass as they are."""
        if frames.is_floating_point():
            return frames
        images_NCHW = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return normalise(images_NCHW, self.mean, self.std).unflatten(0, frames.shape[:2])

    def glance(self, frames_BTCHW: Tensor) -> Glance:
        """All frames through the glancer, at `glance_size` (resized with antialiasing if it differs)."""
        parts = look(self.glancer, self.prepare(frames_BTCHW).flatten(0, 1), self.config.model.glance_size)
        return Glance(*(part.unflatten(0, frames_BTCHW.shape[:2]) for part in parts))

    def act(
        self,
        glance: Glance,
        patches: Patches = "policy",
        *,
        greedy: bool = True,
        generator: torch.Generator | None = None,
    ) -> Act:
        """Choose patches: by the policy (its mode, or a sample), uniformly at random, or the centre."""
        sizes = (self.config.data.crop, self.config.model.patch_size)
        if patches == "policy":
            output = self.policy(self.states(glance))
            action = output.actions.mode() if greedy else output.actions.sample(generator)
            return Act(self.policy.corners(action, sizes[0]), action, output)
        shape, device = self.action_shape(glance), glance.feature_BTD.device
        if patches == "random":
            return Act(random_corners(shape, *sizes, device=device, generator=generator))
        return Act(centre_corners(shape, *sizes, device=device))

    def action_shape(self, glance: Glance) -> tuple[int, int]:
        """(B, S)."""
        batch, frames = glance.feature_BTD.shape[:2]
        return batch, frames // self.maps_per_state(self.config)

    def crop(self, frames_BTCHW: Tensor, corners_BS2: Tensor) -> Tensor:
        """One patch per frame, patches_BTCPP of the frames' dtype; S is T, or 1 for all frames of a clip."""
        batch, frames = frames_BTCHW.shape[:2]
        corners_N2 = corners_BS2.expand(batch, frames, 2).flatten(0, 1)
        patches_NCPP = crop_patches(frames_BTCHW.flatten(0, 1), corners_N2, self.config.model.patch_size)
        return patches_NCPP.unflatten(0, (batch, frames))

    def focus(self, patches_BTCPP: Tensor) -> Tensor:
        """All patches through the focuser: feature_BTD."""
        feature_ND = self.focuser(self.prepare(patches_BTCPP).flatten(0, 1))
        return feature_ND.unflatten(0, patches_BTCPP.shape[:2])

    def blank(self, glance: Glance) -> Tensor:
        """The focus feature_BTD of a patch of zeros (after normalisation), from one clip's pass only."""
        frames, side = self.config.data.num_focus_frames, self.config.model.patch_size
        feature_1TD = self.focus(glance.feature_BTD.new_zeros(1, frames, 3, side, side))
        return feature_1TD.expand(len(glance.feature_BTD), -1, -1)

    def forward(
        self,
        glance_frames: Tensor,
        focus_frames: Tensor,
        patches: Patches = "policy",
        greedy: bool = True,
        generator: torch.Generator | None = None,
    ) -> Output:
        """The whole method on uint8 (or prepared) frames BTCHW; for the untrimmed family pass the same ones twice."""
        glance = self.glance(glance_frames)
        act = self.act(glance, patches, greedy=greedy, generator=generator)
        focus_BTD = self.focus(self.crop(focus_frames, act.corners_BS2))
        logits_BTK = self.classify(glance, focus_BTD)
        corners_BT2 = act.corners_BS2.expand(*focus_frames.shape[:2], 2)
        return Output(logits_BTK, logits_BTK[:, -1], corners_BT2, glance, act)


class Untrimmed(AdaFocus):
    """Long videos (ActivityNet, FCVID, Mini-Kinetics): an action per frame, the same frames for both networks."""

    @staticmethod
    def network_options(config: Config) -> tuple[int | None, int | None, float | None]:
        """No shift; torchvision's own dropout in pretraining, as the reference."""
        return None, None, None

    @staticmethod
    def maps_per_state(config: Config) -> int:
        """Each map is a state."""
        return 1

    def states(self, glance: Glance) -> Tensor:
        """The maps, frame by frame."""
        return glance.map_BTDhw

    def features(self, glance: Glance, focus_BTD: Tensor) -> Tensor:
        """The classifier's input."""
        return torch.cat([glance.feature_BTD, focus_BTD], -1) if self.concatenates else focus_BTD

    def classify(self, glance: Glance, focus_BTD: Tensor) -> Tensor:
        """After every frame."""
        return self.classifier(self.features(glance, focus_BTD)) + self.glancer_share(glance)

    def glancer_share(self, glance: Glance) -> Tensor | float:
        """What the glancer's own prediction adds: with the averaged classifier, its mean over the prefix."""
        return prefix_mean(glance.logits_BTK) if self.averages_glances else 0.0

    def decisions(self, logits_BTK: Tensor) -> Tensor:
        """Every prefix follows an action."""
        return logits_BTK

    def counterfactual(self, glance: Glance, taken_BTD: Tensor, other_BTD: Tensor) -> Tensor:
        """One step aside from the taken path, at every frame at once."""
        taken, other = self.features(glance, taken_BTD), self.features(glance, other_BTD)
        return self.classifier.counterfactual(taken, other) + self.glancer_share(glance)


class Trimmed(AdaFocus):
    """Short clips (Something-Something): temporal shift, one action per clip, averaged logits."""

    @staticmethod
    def network_options(config: Config) -> tuple[int | None, int | None, float | None]:
        """Shift in both networks, the configured dropout before their heads."""
        return config.data.num_frames, config.data.num_focus_frames, config.model.dropout

    @staticmethod
    def maps_per_state(config: Config) -> int:
        """All maps of a clip are one state."""
        return config.data.num_frames

    def states(self, glance: Glance) -> Tensor:
        """The maps one behind the other on the channel axis: (B, 1, T*D, h, w)."""
        return glance.map_BTDhw.flatten(1, 2).unsqueeze(1)

    def classify(self, glance: Glance, focus_BTD: Tensor) -> Tensor:
        """After every focus frame, the whole glance being known."""
        if self.concatenates:
            mean_B1D = glance.feature_BTD.mean(1, keepdim=True)
            focus_BTD = torch.cat([mean_B1D.expand(-1, focus_BTD.shape[1], -1), focus_BTD], -1)
        logits_BTK = self.classifier(focus_BTD)
        return logits_BTK + glance.logits_BTK.mean(1, keepdim=True) if self.averages_glances else logits_BTK

    def decisions(self, logits_BTK: Tensor) -> Tensor:
        """Only the whole clip follows the one action."""
        return logits_BTK[:, -1:]

    def counterfactual(self, glance: Glance, taken_BTD: Tensor, other_BTD: Tensor) -> Tensor:
        """The other patch in all frames."""
        return self.decisions(self.classify(glance, other_BTD))


def normalise(images_NCHW: Tensor, mean_C11: Tensor, std_C11: Tensor) -> Tensor:
    """uint8 -> float32 of about zero mean and unit spread, in the same memory format."""
    return images_NCHW.float().sub_(mean_C11).div_(std_C11)


def look(glancer: Backbone, images_NCHW: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised images at `size` pixels through the glancer -> map_NDhw, feature_ND, logits_NK."""
    if images_NCHW.shape[-1] != size:
        images_NCHW = F.interpolate(images_NCHW, (size, size), mode="bilinear", antialias=True)
    map_NDhw = glancer.features(images_NCHW)
    feature_ND = glancer.pool(map_NDhw)
    return map_NDhw, feature_ND, glancer.head(feature_ND)


FAMILIES: dict[str, type[AdaFocus]] = {"untrimmed": Untrimmed, "trimmed": Trimmed}


def build_model(config: Config, num_classes: int, *, pretrained: bool = True) -> AdaFocus:
    """The model of a configuration. Raises UserError for settings and weights that do not fit together."""
    return FAMILIES[config.model.family](config, num_classes, pretrained=pretrained)


def check_frames(config: Config) -> None:
    """Raises UserError unless frames and patch fit together."""
    data, model = config.data, config.model
    try:
        check_sizes(data.crop, model.patch_size)
    except ValueError as error:
        raise UserError(f"model.{error} (data.crop)") from None
    if model.family == "untrimmed" and data.num_frames != data.num_focus_frames:
        raise UserError(
            f"data.num_focus_frames is {data.num_focus_frames}, but the untrimmed family's networks see the same "
            f"data.num_frames = {data.num_frames} frames"
        )


@contextlib.contextmanager
def part_seed(seed: int, part: str) -> Iterator[None]:
    """Random numbers of one part's initial weights: they do not depend on how the other parts are made."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed((seed + zlib.crc32(part.encode())) % 2**63)
        yield


def map_size(glancer: Backbone, side: int, num_frames: int) -> tuple[int, int]:
    """(h, w) of the glancer's map of a square image, without computing it."""
    shadow = copy.deepcopy(glancer).to("meta").eval()
    shape = shadow.features(torch.empty(num_frames, 3, side, side, device="meta")).shape
    return shape[-2], shape[-1]
