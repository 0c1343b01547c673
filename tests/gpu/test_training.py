"""How fast training is: steps of every stage of every method at their recipes' batches, or what of them fits."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from adafocus.acceleration.accelerate import DTYPES, accelerate
from adafocus.config.overrides import override
from adafocus.config.schema import Config
from helpers.gpu_report import Report
from helpers.gpu_rig import Rig, missed, on_cpu_and_gpu, on_slow_cpu_and_gpu, representatives, stage_cases
from helpers.measuring import matrix_peak, seconds
from helpers.training_steps import plain_ppo_step, stage_step

PPO_OVER_PARTS = 1.2
"""What a ppo step may take, over its two focuser passes and one glance."""


def micro_batch(rig: Rig, config: Config, stage: str) -> int:
    """Clips of a stage's micro-batch: the recipe's, or 4 on a CPU."""
    settings = getattr(config, stage)
    return settings.batch_size // settings.accumulate if rig.is_gpu else 4


def of_size(config: Config, stage: str, clips: int) -> Config:
    """The configuration with one micro-batch of so many clips."""
    return override(config, {f"{stage}.batch_size": clips, f"{stage}.accumulate": 1})


def largest_that_fits(rig: Rig, what: str, clips: int, measure: Callable[[int], object]) -> None:
    """Measure with so many clips, or with half as many, and so on, until the card has memory for them. The report says
    what it had none for."""
    while True:
        try:
            measure(clips)
            return
        except torch.OutOfMemoryError:
            if clips == 1:
                raise
        if rig.is_gpu:
            gc.collect()
            torch.cuda.empty_cache()
        rig.report.left_out.append(f"{rig.part}: {what}, {clips} clips: more memory than the card has")
        clips //= 2


def timed(rig: Rig, run: object) -> float:
    """Few runs are enough: a step takes long."""
    return seconds(run, rig.device, budget_s=0.6 if rig.is_gpu else 0.01, least=2)


@on_slow_cpu_and_gpu
@pytest.mark.parametrize(("recipe", "stage"), stage_cases())
def test_a_step(recipe: str, stage: str, rig: Rig) -> None:
    """In the recipe's precision and in bf16: time, share of the matrix peak, memory, and what the same bits cost."""
    config = rig.config(recipe)
    for precision in dict.fromkeys((getattr(config, stage).precision, "bf16")):
        what = f"{recipe}, {stage}, {precision}"
        if not rig.has_time(what, 6):
            return
        largest_that_fits(
            rig, what, micro_batch(rig, config, stage), partial(_measure_step, rig, recipe, stage, precision)
        )


def _measure_step(rig: Rig, recipe: str, stage: str, precision: str, clips: int) -> None:
    config = override(of_size(rig.config(recipe), stage, clips), {f"{stage}.precision": precision})
    model, batch = rig.model(config), rig.batch(config, clips).to(rig.device)
    what = f"{recipe}, {stage}, {clips} clips, {precision}"
    step = stage_step(model, stage, batch)
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
    config, since = rig.config(recipe), len(rig.report.rows)
    for precision in ("float32", "bf16"):
        what = f"{recipe}, ppo against its parts, {precision}"
        if not rig.has_time(what, 6):
            break
        largest_that_fits(rig, what, micro_batch(rig, config, "ppo"), partial(_measure_ppo, rig, recipe, precision))
    if config.model.action_per == "frame":
        _first_losses_agree(rig, recipe)
    assert not missed(rig, since), [row.what for row in missed(rig, since)]


def _measure_ppo(rig: Rig, recipe: str, precision: str, clips: int) -> None:
    config = override(of_size(rig.config(recipe), "ppo", clips), {"ppo.precision": precision})
    what = f"{recipe}, ppo, {clips} clips, {precision}: step"
    model, batch = rig.model(config), rig.batch(config, clips).to(rig.device)
    step = timed(rig, stage_step(rig.model(config), "ppo", batch))
    fast = accelerate(model, precision=precision)
    glance, focus = rig.views(config, clips)
    with torch.no_grad():
        patches = fast.look(glance, focus, "random").patches_BTCPP
        parts = timed(rig, partial(fast.glance, glance)) + 2 * timed(rig, partial(fast.focus, patches))
    rig.add(f"{what} over its networks", step / parts, "x", at_most=PPO_OVER_PARTS)
    if config.model.action_per == "frame" and rig.has_time(f"{recipe}, plain ppo", 10):
        plain = timed(rig, plain_ppo_step(model, batch))
        rig.add(what, plain / step, "x plain", "float32 in the plain one")


def _first_losses_agree(rig: Rig, recipe: str) -> None:
    config = override(rig.config(recipe, **{"ppo.precision": "float32"}), {"ppo.batch_size": 2})
    model, batch = rig.model(config), rig.batch(config, 2).to(rig.device)
    ours, plain = stage_step(copy.deepcopy(model), "ppo", batch)(), plain_ppo_step(copy.deepcopy(model), batch)()
    assert ours.item() == pytest.approx(plain.item(), abs=2e-3)


@on_cpu_and_gpu
def test_what_does_not_fit_is_measured_smaller(rig: Rig) -> None:
    tried: list[int] = []

    def measure(most: int, clips: int) -> None:
        tried.append(clips)
        if clips > most:
            raise torch.OutOfMemoryError

    for most, expected in ((64, [64]), (20, [64, 32, 16])):
        tried.clear()
        largest_that_fits(replace(rig, report=Report()), "a step", 64, partial(measure, most))
        assert tried == expected
    report = Report()
    with pytest.raises(torch.OutOfMemoryError):
        largest_that_fits(replace(rig, report=report), "a step", 2, partial(measure, 0))
    assert report.left_out == ["training: a step, 2 clips: more memory than the card has"]


def test_every_stage_has_a_case() -> None:
    assert len(stage_cases()) > len(representatives()) >= 2
