"""No waiting: training steps, inference and the loader's hand-over give the device work without waiting for it.

On a GPU CUDA itself raises an error where something waits. On a CPU nothing can wait: there the checks prove that they
run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch

from adafocus.acceleration.accelerate import accelerate
from adafocus.config.overrides import override
from adafocus.data.loader import ClipLoader
from helpers.gpu_rig import Rig, on_cpu_and_gpu, on_slow_cpu_and_gpu, representatives, skips_frames, stage_cases
from helpers.measuring import synchronize
from helpers.training_steps import stage_step


@contextlib.contextmanager
def forbidden(rig: Rig) -> Iterator[None]:
    """While entered, waiting for the GPU is an error."""
    synchronize(rig.device)
    if rig.is_gpu:
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if rig.is_gpu:
            torch.cuda.set_sync_debug_mode("default")


@on_slow_cpu_and_gpu
@pytest.mark.parametrize("precision", ["float32", "fp16"])
@pytest.mark.parametrize(("recipe", "stage"), stage_cases())
def test_training_steps(recipe: str, stage: str, precision: str, rig: Rig) -> None:
    """With a scaler and clipped gradients; the batch comes from page-locked memory."""
    config = rig.config(recipe, **{f"{stage}.precision": precision, f"{stage}.clip_grad_norm": 1.0})
    step = stage_step(rig.model(config), stage, rig.batch(config, 4))
    loss = step()  # the first one makes the optimizer's state
    with forbidden(rig):
        for _ in range(3):
            loss = step()
    assert loss.isfinite()


@on_cpu_and_gpu
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("recipe", representatives())
@torch.no_grad()
def test_inference(recipe: str, precision: str, rig: Rig) -> None:
    config = rig.config(recipe)
    if skips_frames(config):
        pytest.skip("its gate decides how many patches there are: inference waits for it")
    fast = accelerate(rig.model(config), precision=precision)
    batch = rig.batch(config, 2)
    moved = batch.to(rig.device)
    fast(moved.glance_BTCHW, moved.focus_BTCHW)
    with forbidden(rig):
        moved = batch.to(rig.device)
        output = fast(moved.glance_BTCHW, moved.focus_BTCHW)
    assert output.logits_BTK.isfinite().all()


@on_cpu_and_gpu
@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_loaders_hand_over(num_workers: int, rig: Rig) -> None:
    """Batches come page-locked, with colours last in memory, and are the same on the device."""
    shards = rig.shards()
    config = override(rig.config("activitynet-128"), {} if rig.is_gpu else {"data.resize": 40, "data.crop": 40})
    loader = ClipLoader(shards, "train", config.data, batch_size=4, train=True, num_workers=num_workers)
    with forbidden(rig):
        pairs = [(batch, batch.to(rig.device)) for batch in loader]
    assert pairs
    for batch, moved in pairs:
        assert batch.glance_BTCHW.is_pinned() == rig.is_gpu
        assert moved.glance_BTCHW.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
        assert moved.glance_BTCHW.cpu().equal(batch.glance_BTCHW) and moved.glance_BTCHW is moved.focus_BTCHW
