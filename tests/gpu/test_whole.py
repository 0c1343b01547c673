"""Whole: all stages of every method, one after the other, at published sizes on a small data set."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from adafocus import checkpoint
from adafocus.config.overrides import override
from adafocus.methods import method_of
from adafocus.training.loss_watch import LossWatch
from adafocus.training.reports import EpochReport, Options
from adafocus.training.stage_runner import run_stage
from adafocus.training.update import Updater
from helpers.gpu_rig import FOR_SYNTHETIC, Rig, on_slow_cpu_and_gpu, representatives, stage_cases
from helpers.training_steps import SEED


@on_slow_cpu_and_gpu
@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", id="fp16, scaler")])
@pytest.mark.parametrize("recipe", representatives())
def test_all_stages(recipe: str, precision: str, rig: Rig, tmp_path: Path) -> None:
    """One epoch of each, evaluation with it; peak memory by stage."""
    config = rig.config(recipe)
    stages = method_of(config).stage_names
    for name in stages:
        config = override(config, {f"{name}.epochs": 1, f"{name}.precision": precision})
        if not rig.is_gpu:
            config = override(config, {**FOR_SYNTHETIC, f"{name}.batch_size": 12})
    for name in stages:
        if not rig.has_time(f"{recipe}, {name}, {precision}", 8):
            return
        if rig.is_gpu:
            torch.cuda.reset_peak_memory_stats(rig.device)
        reports: list[EpochReport] = []
        options = Options(device=str(rig.device))
        folder = run_stage(name, config, shards=rig.shards(), runs=tmp_path, options=options, report=reports.append)
        found = reports[-1].metrics
        clips = min(getattr(config, name).batch_size, 40 if rig.is_gpu else 24)
        note = f"{clips} clips; loss {found[f'{name}/loss']:.3f}"
        memory = torch.cuda.max_memory_allocated(rig.device) / 2**30 if rig.is_gpu else 0.0
        rig.add(f"{recipe}, {name}, {precision}: peak memory", memory, "GiB", note)
        model, meta = checkpoint.load_model(folder)
        assert meta.stage == name and all(value.isfinite().all() for value in model.state_dict().values())


@on_slow_cpu_and_gpu
@pytest.mark.parametrize(("recipe", "stage"), stage_cases())
def test_one_rank_of_several_workers(recipe: str, stage: str, rig: Rig, tmp_path: Path) -> None:
    """A process group of one (nccl, on a CPU gloo): a step whose gradients go through it is the step without it."""
    config = rig.config(recipe, **{f"{stage}.precision": "float32"})
    model, batch = rig.model(config), rig.batch(config, 4)
    losses, weights = [], []
    for grouped in (False, True):
        own = copy.deepcopy(model)
        if grouped:
            backend = "nccl" if rig.is_gpu else "gloo"
            dist.init_process_group(backend, f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
        try:
            part = method_of(config).stage(stage)(own, config).train()
            part.draws.manual_seed(SEED)
            torch.manual_seed(SEED)
            wrapped = DistributedDataParallel(part) if grouped else part
            scaler = torch.amp.GradScaler(rig.device.type, enabled=False)
            updater = Updater(part, part.optimizer(), scaler, rig.device, wrapped=wrapped)
            losses.append(updater.step(itertools.repeat(batch), LossWatch())["loss"].item())
            weights.append({key: value.clone() for key, value in own.state_dict().items()})
            if grouped:
                told: list[object] = [None]
                dist.all_gather_object(told, recipe)
                assert told == [recipe]
        finally:
            if grouped:
                dist.destroy_process_group()
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=1e-3, atol=1e-4, msg=key)
    rig.add(f"{recipe}, {stage}: loss with a process group of one", losses[1], "", f"{losses[0]:.6f} without")
