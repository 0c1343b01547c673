"""What went wrong where numbers are no longer numbers: losses, predictions or weights that are NaN or infinite."""

from __future__ import annotations

from collections.abc import Sequence

ADVICE = (
    "lower the stage's learning rate, clip its gradients (clip_grad_norm) or train it in float32; "
    "if it fails on the same clips again, look at them"
)
"""What its user can do about it."""


class DivergedError(RuntimeError):
    """Training has diverged; the message says where that was seen."""


def some(clip_ids: Sequence[str], most: int = 8) -> str:
    """The first of many clips, in words."""
    return ", ".join(clip_ids[:most]) + (f" and {len(clip_ids) - most} more" if len(clip_ids) > most else "")
