"""Options of a benchmark: what is measured and logged of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from adafocus.config.schema import Precision
from preprocessing.schema import UserError


@dataclass(frozen=True, slots=True)
class BenchmarkOptions:
    """What is measured and logged of a checkpoint."""

    batch_size: int = 32
    """Clips per batch of the evaluation, and of videos/s and memory."""
    precisions: tuple[Precision, ...] = ("float32",)
    """Of the image networks: each has rows of its own."""
    compile: bool = False
    """Compile the image networks; the time that takes is in no number."""
    probe: bool = False
    """Fit classifiers on features of whole frames too."""
    exits: bool = False
    """Measure early exit too, at every calibrated budget."""
    gallery_clips: int = 0
    """Log a gallery page with so many best, worst and most uncertain clips each; 0: none."""
    split: str | None = None
    """The split to measure on; None: the one that training was evaluated on."""


DEFAULT_OPTIONS = BenchmarkOptions()


def parse_precisions(text: str) -> tuple[Precision, ...]:
    """`float32,bf16` -> both. Raises UserError for an unknown precision."""
    known = {name: name for name in get_args(Precision)}
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in known:
            raise UserError(f"--precision {text!r}: {name!r} is none of {', '.join(known)}")
    return tuple(known[name] for name in names)
