"""Exact: what other precisions and the plain formulation make of the same weights and frames.

Numbers of the authors' code are compared on the GPU by tests/test_parity*.py.
"""

from __future__ import annotations

import pytest
import torch

from adafocus.acceleration.accelerate import accelerate
from helpers.gpu_rig import Rig, on_cpu_and_gpu, representatives
from helpers.measuring import agreement, tf32
from helpers.per_frame import plain_pass

WORST = {"float32": 1e-3, "TF32": 2e-2, "bf16": 0.2, "fp16": 0.1}
"""Largest error, as a share of the largest logit, where patches are the same. Weights are random: nothing in them makes
one class stand out, so that 16 bits show more than in a trained network."""


@on_cpu_and_gpu
@pytest.mark.parametrize("recipe", representatives())
@torch.no_grad()
def test_precisions_agree(recipe: str, rig: Rig) -> None:
    """With the patches that float32 chose, and with their own; the plain formulation too."""
    config = rig.config(recipe)
    model = rig.model(config)
    glance, focus = rig.views(config, 8 if rig.is_gpu else 2, seed=2)
    with tf32(False):
        wanted = model(glance, focus)
        corners, logits = wanted.choice.corners_BS2, wanted.logits_BTK
        clips = range(len(glance))
        plain = torch.cat([plain_pass(model, glance[i : i + 1], focus[i : i + 1]) for i in clips])
        error, *_ = agreement(plain, logits)
        rig.add(f"{recipe}, plain formulation: largest error", error, "of the largest logit")
        assert error < WORST["float32"]
        given = model(
            glance, focus, corners
        ).logits_BTK  # of boxes that change their size only the corners can be given
    for name in WORST:
        if name == "TF32" and not rig.is_gpu:
            continue
        fast = accelerate(model, precision=name if name in ("bf16", "fp16") else "float32")
        with tf32(name == "TF32"):
            error, clips_alike, _ = agreement(fast(glance, focus, corners).logits_BTK, given)
            _, whole_alike, _ = agreement(fast(glance, focus).logits_BTK, logits)
        rig.add(f"{recipe}, {name}: largest error", error, "of the largest logit", "same patches")
        rig.add(f"{recipe}, {name}: same top-1", 100 * clips_alike, "% of clips", f"{whole_alike:.0%} with own patches")
        assert error < WORST[name], name
