"""What the links of a model's chain hand on: a glance, the choice of patches, and the answer.

Shapes: B clips, T frames, S actions of a clip, D features, h w map cells, C colours, P patch side, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from adafocus.models.policy import PolicyOutput


@dataclass(frozen=True, slots=True)
class Glance:
    """What the glancer sees of a clip."""

    map_BTDhw: Tensor
    feature_BTD: Tensor
    logits_BTK: Tensor
    """Its own prediction per frame, from its own last layer."""


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

    def rows(self, kept_B: Tensor) -> State:
        """That of some of a batch's clips: bool (B,), or their numbers."""
        parts = (self.policy, self.classifier, self.glances, self.gate)
        return State(*(None if part is None else part[:, kept_B] for part in parts))


@dataclass(frozen=True, slots=True)
class Output:
    """Of a whole pass."""

    logits_BTK: Tensor
    """Of every exit: after focus frame 1, 2, ..., T."""
    prediction_BK: Tensor
    """Of the last exit."""
    corners_BT2: Tensor
    """Likewise, one patch per focus frame."""
    glance: Glance
    choice: PatchChoice
    state: State = field(default_factory=State)
    """For the clip's next frames."""
