"""No step copies from the CPU to the GPU in a way that the host waits for: shown without a GPU, on tensors that only
pretend to be on one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from adafocus.acceleration.accelerate import accelerate
from adafocus.data.batches import Batch
from adafocus.methods import build_model, method_of
from adafocus.models.adafocus import Patches
from adafocus.stages.reinforcement import normalise_returns
from helpers.gpu_rig import representatives, skips_frames, stage_cases
from helpers.settled import views
from helpers.tiny import shrink
from pipelines.recipes import find_recipe


class WaitingCopies(TorchDispatchMode):
    """A context that notes copies between the CPU and another device for which the host waits."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called for every operation, those of a backward pass too."""
        result = func(*args, **(kwargs or {}))
        name = str(func).partition(".")[2].partition(".")[0]
        if name in ("_to_copy", "copy_") and isinstance(result, Tensor):
            source = args[1] if name == "copy_" else args[0]
            waits = not ((kwargs or {}).get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
            if waits and (source.device.type == "cpu") != (result.device.type == "cpu"):
                self.found.append(f"{tuple(source.shape)} {source.dtype}")
        return result


def run(fake: FakeTensorMode, work: Callable[[], object]) -> list[str]:
    """Copies that work on fake tensors waits for."""
    with fake, WaitingCopies() as copies:
        work()
    return copies.found


def no_driver(self: nn.GRU, inputs: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A recurrent layer's shapes: torch asks cuDNN for workspaces even where tensors only pretend."""
    outputs = inputs.new_zeros(*inputs.shape[:2], self.hidden_size)
    return outputs, outputs[:, -1][None]


def pretend(fake: FakeTensorMode, value: Tensor) -> Tensor:
    """A tensor that says it is on a GPU."""
    with fake:
        return fake.from_tensor(value).to("cuda", non_blocking=True)


def move(fake: FakeTensorMode, *parts: nn.Module) -> None:
    """Let all tensors of modules say so."""
    for module in {module for part in parts for module in part.modules()}:
        for key, value in module.named_parameters(recurse=False):
            setattr(module, key, nn.Parameter(pretend(fake, value.detach()), value.requires_grad))
        for key, value in module.named_buffers(recurse=False):
            setattr(module, key, pretend(fake, value))


@pytest.mark.parametrize(("recipe", "name"), stage_cases())
def test_a_training_step(recipe: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.GRU, "forward", no_driver)
    config = shrink(find_recipe(recipe))
    stage = method_of(config).stage(name)(build_model(config, 5), config)
    stage.draws = None  # fake tensors know no generators: torch's own one instead
    fake = FakeTensorMode()
    move(fake, stage, stage.fast)
    glance, focus = views(config, 1, 4)
    moved = pretend(fake, glance)
    labels = pretend(fake, torch.ones(4, 3).long())
    batch = Batch(moved, moved if focus is glance else pretend(fake, focus), labels, list("abcd"))
    stage.train()

    def loss() -> object:  # the backward pass would need a real device
        with torch.no_grad():
            collected = stage.collect(batch)
        stage.prepare([collected])
        return stage(collected)

    assert run(fake, loss) == []


@pytest.mark.parametrize("patches", ["policy", "random", "centre"])
@pytest.mark.parametrize("recipe", representatives())
@torch.no_grad()
def test_inference(recipe: str, patches: Patches, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a CUDA graph could not record: nothing else than the gate that skips frames reads back from the device."""
    config = shrink(find_recipe(recipe))
    if skips_frames(config) and patches == "policy":
        pytest.skip("its gate decides how many patches there are: inference waits for it")
    monkeypatch.setattr(nn.GRU, "forward", no_driver)
    model = accelerate(build_model(config, 5).eval())
    fake = FakeTensorMode()
    move(fake, model)
    glance, focus = views(config, 1, 2)
    moved = pretend(fake, glance)
    others = moved if focus is glance else pretend(fake, focus)
    assert run(fake, lambda: model(moved, others, patches)) == []


def test_such_a_copy_is_seen() -> None:
    fake = FakeTensorMode()
    with fake:
        returns = torch.empty(4, 3, device="cuda")
    assert run(fake, lambda: returns.new_tensor(12))
    assert run(fake, lambda: torch.ones(3).to("cuda"))
    assert run(fake, lambda: torch.ones(3).to("cuda", non_blocking=True)) == []
    assert run(fake, lambda: normalise_returns(returns)) == []
