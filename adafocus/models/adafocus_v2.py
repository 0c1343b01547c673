"""AdaFocusV2 (Wang et al., CVPR 2022): the same chain, learnt end to end.

The policy gives positions between pixels, and the crop is bilinear, so that what the focuser makes of a patch has a
gradient to where the patch lies. The policy sends none to the glancer.

Two kinds, by `model.action_per`. A position for every frame: recurrent policy, a classifier with a last layer for every
prefix. One for the clip (Something-Something): feed-forward policy, and two linear layers on detached features, while
the networks' own last layers are auxiliary ones that they learn through.

Shapes: as `adafocus.models.adafocus`.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from adafocus.models.adafocus import AdaFocus, normalise
from adafocus.models.crop import crop_between
from adafocus.models.outputs import Glance
from adafocus.models.policies.policy import PatchPolicy
from adafocus.models.policies.position_policy import ClipPosition, RecurrentPositions
from adafocus.models.prefix_classifier import PrefixClassifier, TwoHeads


class AdaFocusV2(AdaFocus):
    """The second version's four parts. Of the settings `model.action`, `model.action_std`, `model.grid_size`,
    `model.policy_norm` and `model.classifier`, which are the first version's, nothing is read."""

    whole_pixels: ClassVar[bool] = False

    def _build_policy(self, num_channels: int, map_size: tuple[int, int]) -> PatchPolicy:
        kind = RecurrentPositions if self.acts_per_frame else ClipPosition
        return kind(self.config.model, num_channels, map_size)

    def _build_classifier(self, num_features: int) -> PrefixClassifier | TwoHeads:
        model, frames = self.config.model, self.config.data.num_frames
        if self.acts_per_frame:
            return PrefixClassifier(num_features, model.classifier_hidden, self.num_classes, frames, model.dropout)
        reused = self.glancer.num_features if self.averages_glances else 0
        return TwoHeads(reused, self.focuser.num_features, self.num_classes)

    @property
    def averages_logits(self) -> bool:
        """One position for the clip: yes."""
        return not self.acts_per_frame

    @property
    def head_dropout(self) -> float | None:
        """As configured; where two heads share a feature it is dropped once, before both."""
        return self.config.model.head_dropout if self.acts_per_frame else 0.0

    @property
    def most_frames(self) -> int | None:
        """Frames that have a last layer of their own."""
        return self.config.data.num_frames if self.acts_per_frame else None

    def glance(self, frames_BTCHW: Tensor) -> Glance:
        """As the first version's, with dropout on the feature where two heads share it."""
        glance = super().glance(frames_BTCHW)
        if not self._drops_features:
            return glance
        feature_BTD = self._dropped(glance.feature_BTD)
        return Glance(glance.map_BTDhw, feature_BTD, self.glancer.head(feature_BTD))

    def focus(self, patches_BTCPP: Tensor) -> Tensor:
        """Likewise."""
        feature_BTD = super().focus(patches_BTCPP)
        return self._dropped(feature_BTD) if self._drops_features else feature_BTD

    @property
    def _drops_features(self) -> bool:
        return self.training and not self.acts_per_frame and bool(self.config.model.head_dropout)

    def _dropped(self, feature_BTD: Tensor) -> Tensor:
        return F.dropout(feature_BTD, self.config.model.head_dropout or 0.0)

    def states(self, glance: Glance) -> Tensor:
        """The policy's input, map_BSDhw, without a gradient to the glancer."""
        return super().states(glance).detach()

    def crop(self, frames_BTCHW: Tensor, corners_BS2: Tensor) -> Tensor:
        """One patch per frame, normalised patches_BTCPP with a gradient to the corners, float (B, S, 2)."""
        batch, frames = frames_BTCHW.shape[:2]
        corners_N2 = corners_BS2.expand(batch, frames, 2).flatten(0, 1)
        patches_NCPP = crop_between(frames_BTCHW.flatten(0, 1), corners_N2, self.config.model.patch_size)
        if not frames_BTCHW.is_floating_point():
            patches_NCPP = normalise(patches_NCPP, self.mean, self.std)
        return patches_NCPP.unflatten(0, (batch, frames))

    def clip_glance(self, glance: Glance) -> Tensor:
        """The prediction of the glancer's main head for the whole clip, logits_B1K."""
        assert isinstance(self.classifier, TwoHeads)
        return self.classifier.glances(glance.feature_BTD)

    def counted_modules(self, part: str) -> tuple[str, ...]:
        """Names of the modules that compute a part's share of the prediction; auxiliary layers are none."""
        if part == "glancer":
            return ("glancer.body", "glancer.pooling")
        return ("classifier", "classifier.glance") if part == "classifier" and self.averages_glances else (part,)
