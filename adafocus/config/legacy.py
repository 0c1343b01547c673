"""Settings of earlier versions, as this one calls them, so that their checkpoints and sweep records stay readable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FAMILY = "model.family"
"""Until 0.1 one setting chose between two input regimes, which are single settings now."""


def translated(flat: Mapping[str, Any]) -> dict[str, Any]:
    """A flat configuration with today's names."""
    if FAMILY not in flat:
        return dict(flat)
    kept = {name: value for name, value in flat.items() if name != FAMILY}
    if flat[FAMILY] != "trimmed":
        return kept
    return {
        **kept,
        "data.focus_frames": "own",
        "model.temporal_shift": True,
        "model.head_dropout": flat.get("model.dropout", 0.8),
        "model.action_per": "clip",
    }
