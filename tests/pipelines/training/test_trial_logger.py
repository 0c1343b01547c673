"""What the page of a finished trial's run says."""

from __future__ import annotations

from pathlib import Path

from adafocus.checkpoint import read_meta
from pipelines.training.trial_logger import trial_note


def test_a_description_says_what_was_trained_and_what_it_reached(checkpoints: dict[str, Path]) -> None:
    meta = read_meta(checkpoints["second"])
    assert trial_note(meta, "mine", "val") == "Recipe `mine` (AdaFocusV2) on synthetic, trained through joint."
    meta = read_meta(checkpoints["frame"])
    meta.history.append({"metrics": {"finetune/val_top1": 81.25}})
    assert trial_note(meta, "demo", "test") == (
        "Recipe `demo` (AdaFocus) on synthetic, trained through pretrain, warmup, ppo, finetune. It reached top-1 81.2 "
        "on split test."
    )
