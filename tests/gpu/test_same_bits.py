"""Same bits: a stage that was killed inside an epoch and goes on ends with the weights of one that was not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.methods import method_of
from adafocus.training.reports import Options
from adafocus.training.stage_runner import run_stage
from adafocus.training.update import Updater
from helpers.gpu_rig import FOR_SYNTHETIC, Rig, on_slow_cpu_and_gpu, representatives


class KilledError(Exception):
    """Stands for what kills a process between two steps."""


def train(rig: Rig, config: Config, stage: str, runs: Path) -> Path:
    """Where the finished stage is. A state is kept after every step."""
    options = Options(device=str(rig.device), save_every_s=0, deterministic=True)
    return run_stage(stage, config, shards=rig.shards(), runs=runs, options=options, report=lambda row: None)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*.safetensors")))


@on_slow_cpu_and_gpu
@pytest.mark.parametrize("recipe", representatives())
def test_a_killed_stage_ends_with_the_same_bits(
    recipe: str, rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every stage, killed after the second of three steps of its only epoch."""
    config = rig.config(recipe)
    stages = method_of(config).stage_names
    for name in stages:
        config = override(config, {f"{name}.epochs": 1, f"{name}.batch_size": 8})
        if not rig.is_gpu:  # where 16 bits are slow
            config = override(config, {**FOR_SYNTHETIC, f"{name}.precision": "float32"})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    original = Updater.step
    for name in stages:
        if not rig.has_time(f"{recipe}, {name}", 15):
            return
        steps = 0

        def step(self: Updater, *arguments: object) -> object:
            nonlocal steps
            steps += 1
            if steps == 3:
                raise KilledError
            return original(self, *arguments)

        for earlier in whole.glob("*-*"):
            shutil.copytree(earlier, killed / earlier.name, dirs_exist_ok=True)
        monkeypatch.setattr(Updater, "step", step)
        with pytest.raises(KilledError):
            train(rig, config, name, killed)
        monkeypatch.setattr(Updater, "step", original)
        again = weights(train(rig, config, name, killed))
        expected = weights(train(rig, config, name, whole))
        differ = [key for key, value in expected.items() if not value.equal(again[key])]
        rig.add(f"{recipe}, {name}: tensors that differ after it was killed", len(differ), "", at_most=0)
        assert not differ, f"{name}: {differ[:8]}"


@pytest.fixture(autouse=True)
def kernels_as_before() -> Iterator[None]:
    """A stage that asks for deterministic kernels asks for its whole process."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True
