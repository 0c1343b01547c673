"""What skipping chosen frames has to beat: no frame skipped, frames skipped at random, and clips of fewer frames."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from adafocus.evaluation import multiply_adds
from adafocus.models.adafocus_plus import AdaFocusPlus
from adafocus.models.policies.gate import RandomGate


@dataclass(frozen=True, slots=True)
class OtherFrames:
    """A model that looks at other frames than its gate would."""

    label: str
    key: str
    """In names of metrics and files."""
    model: AdaFocusPlus
    num_frames: int | None = None
    """Frames of a clip, evenly spread; None: as configured."""


def other_frames(model: AdaFocusPlus, share: float, gflops: float) -> Iterator[OtherFrames]:
    """The three, beside a gate that looks at a share of the frames for so many GFLOPs.

    Skipping at random looks at the same share; fewer frames are as few as cost no less.
    """
    everywhere = model.with_gate(model.gate.opened())
    yield OtherFrames("policy, no frame skipped", "policy_every", everywhere)
    at_random = RandomGate(model.gate, share, torch.Generator().manual_seed(model.config.seed % 2**63))
    yield OtherFrames("policy, frames skipped at random", "policy_random", model.with_gate(at_random))
    whole, frames = (
        multiply_adds.count(model.config, model.num_classes, looks=1.0)["total"],
        model.config.data.num_frames,
    )
    count = min(math.ceil(gflops / whole * frames - 1e-9), frames)
    yield OtherFrames(f"policy, {count} frames evenly spread", "policy_fewer", everywhere, count)
