"""What the links of a model's chain hand on: a glance, the choice of patches, and the answer.

Shapes: B clips, T frames, S actions of a clip, D features, h w map cells, C colours, P patch side, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from adafocus.models.policies.policy import PolicyOutput


@dataclass(frozen=True, slots=True)
class Glance:
    """What the glancer sees of a clip."""

    map_BTDhw: Tensor
    feature_BTD: Tensor
    logits_BTK: Tensor
    """Its own prediction per frame, from its own last layer."""

    def clips(self, kept_B: Tensor) -> Glance:
        """That of some of a batch's clips."""
        return Glance(self.map_BTDhw[kept_B], self.feature_BTD[kept_B], self.logits_BTK[kept_B])

    def without_map(self) -> Glance:
        """The same with maps of no frames: only policies read them, once a clip."""
        clips, _, *sizes = self.map_BTDhw.shape
        return Glance(self.map_BTDhw.new_empty(clips, 0, *sizes), self.feature_BTD, self.logits_BTK)


@dataclass(frozen=True, slots=True)
class PatchChoice:
    """Where the focuser looks. `action` and `policy` are None unless the policy chose."""

    corners_BS2: Tensor
    """(row, column) of the patch's first pixel: int64, or float32 where it may lie between pixels."""
    action: Tensor | None = None
    policy: PolicyOutput | None = None
    looks_BT: Tensor | None = None
    """Which frames the focuser looks at, bool; None: all. Only AdaFocus+ skips any."""
    gate_1B3: Tensor | None = None
    """What its gate has to know of these frames at the next ones."""
    places_BF: Tensor | None = None
    """Which of the candidate frames the focuser looks at, int64, rising; None: all frames are. Only Uni-AdaFocus
    chooses."""
    sizes_BS2: Tensor | None = None
    """(height, width) of what each patch shows, float32 pixels; None: of the patch itself."""

    def clips(self, kept_B: Tensor) -> PatchChoice:
        """That of some of a batch's clips, without what policies say of it."""
        kept = [None if each is None else each[kept_B] for each in (self.looks_BT, self.places_BF, self.sizes_BS2)]
        return PatchChoice(self.corners_BS2[kept_B], looks_BT=kept[0], places_BF=kept[1], sizes_BS2=kept[2])


@dataclass(frozen=True, slots=True)
class Look:
    """The first half of the chain: what was glanced at, where the focuser looks, and what it sees there."""

    glance: Glance
    choice: PatchChoice
    patches_BTCPP: Tensor
    """Where frames are skipped, those of the others only, one behind the other: (N, 1, C, P, P)."""


@dataclass(frozen=True, slots=True)
class State:
    """What a clip's frames so far leave behind for the next ones; empty at the start of a clip."""

    policy: Tensor | None = None
    """Hidden state of the policy's GRU."""
    classifier: Tensor | None = None
    """Of the classifier: a GRU's hidden state, or sum and number of logits."""
    glances: Tensor | None = None
    """Sum and number of the glancer's logits, where they are part of the prediction."""
    gate: Tensor | None = None
    """What AdaFocus+'s gate knows of its decisions."""
    glance: Glance | None = None
    """Of the whole clip, where it is glanced at before the focuser sees anything (Uni-AdaFocus); without its map once
    the choice is made."""
    choice: PatchChoice | None = None
    """Of all its frames, once it is made there."""

    def rows(self, kept_B: Tensor) -> State:
        """That of some of a batch's clips: bool (B,), or their numbers."""

        def part(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[:, kept_B]

        return State(
            policy=part(self.policy),
            classifier=part(self.classifier),
            glances=part(self.glances),
            gate=part(self.gate),
            glance=None if self.glance is None else self.glance.clips(kept_B),
            choice=None if self.choice is None else self.choice.clips(kept_B),
        )


@dataclass(frozen=True, slots=True)
class Output:
    """Of a whole pass."""

    logits_BTK: Tensor
    """Of every exit: after focus frame 1, 2, ..., T; with Uni-AdaFocus one after all glances before them."""
    prediction_BK: Tensor
    """Of the last exit."""
    corners_BT2: Tensor
    """Likewise, one patch per focus frame."""
    glance: Glance
    choice: PatchChoice
    state: State = field(default_factory=State)
    """For the clip's next frames."""
