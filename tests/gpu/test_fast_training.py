"""Fast: training steps of every stage of every method at their recipes' batches."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from adafocus.acceleration.accelerate import DTYPES, accelerate
from adafocus.config.overrides import override
from adafocus.config.schema import Config
from helpers.gpu_rig import Rig, missed, on_slow_cpu_and_gpu, representatives, stage_cases
from helpers.measuring import matrix_peak, seconds
from helpers.settled import views
from helpers.training_steps import plain_ppo_step, stage_step

PPO_OVER_PARTS = 1.2
"""What a ppo step may take, over its two focuser passes and one glance."""


def at_batch(rig: Rig, recipe: str, stage: str) -> tuple[Config, int]:
    """The configuration of a stage and the clips of its micro-batch: the recipe's, or 4 on a CPU."""
    config = rig.config(recipe)
    settings = getattr(config, stage)
    clips = settings.batch_size // settings.accumulate if rig.is_gpu else 4
    return override(config, {f"{stage}.batch_size": clips, f"{stage}.accumulate": 1}), clips


def timed(rig: Rig, run: object) -> float:
    """Few runs are enough: a step takes long."""
    return seconds(run, rig.device, budget_s=0.6 if rig.is_gpu else 0.01, least=2)


@on_slow_cpu_and_gpu
@pytest.mark.parametrize(("recipe", "stage"), stage_cases())
def test_a_step(recipe: str, stage: str, rig: Rig) -> None:
    """In the recipe's precision and in bf16: time, share of the matrix peak, memory, and what the same bits cost."""
    config, clips = at_batch(rig, recipe, stage)
    published = getattr(config, stage).precision
    model, batch = rig.model(config), rig.batch(config, clips).to(rig.device)
    for precision in dict.fromkeys((published, "bf16")):
        what = f"{recipe}, {stage}, {clips} clips, {precision}"
        if not rig.has_time(what, 6):
            return
        own = copy.deepcopy(model)
        own.config = override(config, {f"{stage}.precision": precision})
        step = stage_step(own, stage, batch)
        if rig.is_gpu:
            torch.cuda.reset_peak_memory_stats(rig.device)
        found = timed(rig, step)
        rig.add(f"{what}: step", 1000 * found, "ms", f"{clips / found:.0f} clips/s")
        with FlopCounterMode(display=False) as counter:
            loss = step()
        assert loss.isfinite() or precision == "fp16"  # whose scaler begins by leaving steps out
        work = counter.get_total_flops() / 2  # the recurrent layers of a GPU are left out
        assert work > 0
        rig.add(f"{what}: share of peak", 100 * work / found / matrix_peak(rig.device, DTYPES[precision]), "%")
        if rig.is_gpu:
            rig.add(f"{what}: peak memory", torch.cuda.max_memory_allocated(rig.device) / 2**30, "GiB")
            torch.use_deterministic_algorithms(True, warn_only=True)
            try:
                rig.add(f"{what}: deterministic kernels", timed(rig, step) / found, "x the time")
            finally:
                torch.use_deterministic_algorithms(False)


@on_slow_cpu_and_gpu
@pytest.mark.parametrize("recipe", [recipe for recipe, stage in stage_cases() if stage == "ppo"])
def test_a_ppo_step_against_its_parts_and_the_plain_one(recipe: str, rig: Rig) -> None:
    """A step's networks are one glance and two focuser passes; the plain one exists where the policy acts per frame."""
    config, clips = at_batch(rig, recipe, "ppo")
    model, since = rig.model(config), len(rig.report.rows)
    batch = rig.batch(config, clips).to(rig.device)
    for precision in ("float32", "bf16"):
        if not rig.has_time(f"{recipe}, ppo against its parts, {precision}", 6):
            break
        own = copy.deepcopy(model)
        own.config = override(config, {"ppo.precision": precision})
        step = timed(rig, stage_step(own, "ppo", batch))
        fast = accelerate(model, precision=precision)
        glance, focus = (each.to(rig.device) for each in views(config, 1, clips))
        with torch.no_grad():
            patches = fast.look(glance, focus, "random").patches_BTCPP
            parts = timed(rig, partial(fast.glance, glance)) + 2 * timed(rig, partial(fast.focus, patches))
        goal = {"at_most": PPO_OVER_PARTS}
        rig.add(f"{recipe}, ppo, {clips} clips, {precision}: step over its networks", step / parts, "x", **goal)
        if config.model.action_per == "frame" and rig.has_time(f"{recipe}, plain ppo", 10):
            plain = timed(rig, plain_ppo_step(copy.deepcopy(model), batch))
            rig.add(
                f"{recipe}, ppo, {clips} clips, {precision}: step", plain / step, "x plain", "float32 in the plain one"
            )
    if config.model.action_per == "frame":
        _first_losses_agree(rig, recipe)
    assert not missed(rig, since), [row.what for row in missed(rig, since)]


def _first_losses_agree(rig: Rig, recipe: str) -> None:
    config = override(rig.config(recipe, **{"ppo.precision": "float32"}), {"ppo.batch_size": 2})
    model, batch = rig.model(config), rig.batch(config, 2).to(rig.device)
    ours, plain = stage_step(copy.deepcopy(model), "ppo", batch)(), plain_ppo_step(copy.deepcopy(model), batch)()
    assert ours.item() == pytest.approx(plain.item(), abs=2e-3)


def test_every_stage_has_a_case() -> None:
    assert len(stage_cases()) > len(representatives()) >= 2
