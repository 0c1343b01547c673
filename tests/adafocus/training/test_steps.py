"""What a step costs beside its arithmetic: memory for graphs, and waiting for the device."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from adafocus.acceleration import fuse
from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.data.batches import Batch
from adafocus.methods import build_model
from adafocus.methods.adafocus import ADAFOCUS
from adafocus.training.loss_watch import LossWatch
from adafocus.training.update import Updater
from helpers.tiny import STAGES
from pipelines.benchmarks.profiling import TensorMemory
from pipelines.recipes import RECIPES


def peak_bytes(name: str, config: Config, batch: Batch) -> int:
    """Most bytes that a step's tensors take at one time, beside the weights."""
    torch.manual_seed(0)
    stage = ADAFOCUS.stage(name)(build_model(config, 5), config)
    optimizer = stage.optimizer()
    stage.train()
    with TensorMemory(batch.glance_BTCHW) as memory:
        with torch.no_grad():
            collected = stage.collect(batch)
        loss, _ = stage(collected)
        loss.backward()
        optimizer.step()
    return memory.peak


@pytest.mark.parametrize("recipe", ["activitynet-128", "ssv1-144"])
def test_ppo_needs_less_memory_than_the_warm_up(
    recipe: str, tiny_form: Callable[[Config], Config], make_batch: Callable[..., Batch]
) -> None:
    """Frozen networks hold no graph, so that even twice the patches take less."""
    config = override(tiny_form(RECIPES[recipe]()), {"model.focuser": "resnet18", "warmup.precision": "float32"})
    batch = make_batch(config, 8, 5, seed=0)
    warmup, ppo = (peak_bytes(name, config, batch) for name in ("warmup", "ppo"))
    frozen = peak_bytes("warmup", override(config, {"warmup.backbone_lr": 0}), batch)
    assert ppo < 0.9 * warmup and frozen < 0.9 * warmup


def test_bytes_are_counted_until_they_are_freed() -> None:
    with TensorMemory() as memory:
        first = torch.zeros(1000)
        second = first.view(10, 100).add_(1) + 1  # a view and an operation in place take nothing
        assert memory.bytes == 8000
        del first
        assert memory.bytes == 4000
        second.double()
    assert memory.peak == 12000 and memory.bytes == 4000


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("recipe", ["activitynet-128", "ssv1-144"])
def test_a_step_reads_nothing_back_from_the_device(
    recipe: str,
    name: str,
    precision: str,
    tiny_form: Callable[[Config], Config],
    make_batch: Callable[..., Batch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fake tensors hold no values: whatever reads one raises. Two whole steps, with scaler and clipping, over clips of
    several labels, of which one is drawn."""
    changes = {f"{name}.precision": precision, f"{name}.clip_grad_norm": 1.0, "ppo.update_epochs": 2}
    config = override(tiny_form(RECIPES[recipe]()), changes)
    stage, real = ADAFOCUS.stage(name)(build_model(config, 5), config), make_batch(config, 4, 5, seed=0)
    monkeypatch.setattr(fuse, "available", lambda dtype: False)  # fake tensors know no kernels of this CPU
    stage.draws = None  # fake tensors know no generators: torch's own one instead
    fake = FakeTensorMode()
    for module in {*stage.modules(), *stage.fast.modules()}:
        for key, value in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            setattr(module, key, fake.from_tensor(value))
    with fake:
        frames, focus, labels = map(fake.from_tensor, (real.glance_BTCHW, real.focus_BTCHW, real.labels_BL))
        batch = Batch(frames, focus, labels.expand(-1, 3), real.clip_ids)
        scaler = torch.amp.GradScaler("cpu", enabled=precision == "fp16")
        updater = Updater(stage, stage.optimizer(), scaler, torch.device("cpu"), wrapped=stage)
        stage.train()
        watch = LossWatch()
        for _ in range(2):  # the first one makes the optimizer's state
            logs = updater.step(iter([batch]), watch)
        assert "grad_norm" in logs and len(watch.pending) == 2 * stage.updates_per_batch
        with pytest.raises(DataDependentOutputException):
            watch.check()
