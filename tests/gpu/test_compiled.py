"""Compiled: inference through torch.compile, last of all, for how long compiling takes is not known beforehand."""

from __future__ import annotations

import time
from functools import partial

import pytest
import torch

from adafocus.acceleration.accelerate import accelerate
from helpers.gpu_rig import Rig, on_slow_cpu_and_gpu
from helpers.measuring import agreement, seconds, synchronize

RECIPE = "activitynet-128"
COMPILE_S = 25.0
"""Time that compiling both networks is expected to take at least."""


@on_slow_cpu_and_gpu
@pytest.mark.parametrize("clips", [64, 1])
@torch.no_grad()
def test_compiled_inference(clips: int, rig: Rig) -> None:
    """Time of compiling, and of a pass over that of the same precision not compiled; the logits agree."""
    if not rig.has_time(f"{RECIPE}, {clips} clips, bf16, compiled", COMPILE_S):
        return
    model, clips = rig.model(rig.config(RECIPE)), clips if rig.is_gpu else min(clips, 2)
    frames = rig.views(model.config, clips)
    precision = "bf16" if rig.is_gpu else "float32"
    plain, compiled = (accelerate(model, precision=precision, compile=each) for each in (False, True))
    started = time.perf_counter()
    logits = compiled(*frames).logits_BTK
    synchronize(rig.device)
    what = f"{RECIPE}, {clips} clips, {precision}, compiled"
    rig.add(f"{what}: first pass", time.perf_counter() - started, "s", "compiling")
    eager = seconds(partial(plain, *frames), rig.device, budget_s=0.3)
    found = seconds(partial(compiled, *frames), rig.device, budget_s=0.3)
    rig.add(what, eager / found, "x not compiled", f"{clips / found:.0f} clips/s")
    rig.add(f"{what}, time", 1000 * found, "ms")
    error, *_ = agreement(logits, plain(*frames).logits_BTK)
    assert error < 0.2
