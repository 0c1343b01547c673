import copy
import logging
import pickle

import pytest
import torch
from torch import nn

from adafocus.acceleration import fuse
from adafocus.acceleration.accelerate import DTYPES, FastBody, accelerate, fold_batch_norms
from adafocus.config.overrides import override
from adafocus.config.schema import Config, Precision
from adafocus.methods import build_model
from adafocus.models.adafocus import AdaFocus
from adafocus.models.backbones import build_backbone
from helpers.networks import settle

SMALLEST = (
    *("tiny", "resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "regnet_x_400mf"),
    *("timm/tf_efficientnet_lite0", "timm/test_resnet", "timm/mobilenetv3_small_050"),
)
"""One of each kind of block, and of batch norm."""


@pytest.mark.parametrize("shift", [None, 2])
@pytest.mark.parametrize("name", SMALLEST)
@torch.no_grad()
def test_folding_changes_nothing_in_any_kind_of_backbone(name: str, shift: int | None) -> None:
    body = settle(build_backbone(name, 2, shift_frames=shift)).get_submodule("body")
    folded = fold_batch_norms(body)
    used = {str(node.target) for node in folded.graph.nodes if node.op == "call_module"}
    assert not any(isinstance(folded.get_submodule(target), nn.BatchNorm2d) for target in used)
    images = torch.randn(2, 3, 64, 64)
    wanted = body(images)
    torch.testing.assert_close(folded(images), wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item())
    assert any(isinstance(part, nn.BatchNorm2d) for part in body.modules())  # the original is untouched


@pytest.mark.parametrize("name", ["timm/test_vit", "timm/test_convnext", "convnext_tiny"])
@torch.no_grad()
def test_a_network_without_batch_norms_computes_as_it_is(name: str) -> None:
    network = settle(build_backbone(name, 2))
    images = torch.randn(3, 3, 64, 64)
    fast = network.with_parts(body=FastBody(network.body, "float32", compile=False))
    torch.testing.assert_close(fast(images), network(images), rtol=1e-4, atol=1e-5)
    half = network.with_parts(body=FastBody(network.body, "bf16", compile=False))(images)
    torch.testing.assert_close(half, network(images), rtol=0, atol=0.2 * network(images).std().item())


@pytest.mark.skipif(not fuse.available(torch.float32), reason="this CPU runs no fused convolutions")
@pytest.mark.parametrize("shift", [None, 2])
@pytest.mark.parametrize("name", SMALLEST)
@torch.no_grad()
def test_fusing_changes_nothing_in_any_kind_of_backbone(name: str, shift: int | None) -> None:
    folded = fold_batch_norms(settle(build_backbone(name, 2, shift_frames=shift)).get_submodule("body"))
    images = torch.randn(2, 3, 64, 64)
    wanted = folded(images)
    fused = fuse.fuse(folded, images)
    for other in (images, torch.randn(3, 3, 32, 32) if shift is None else images):  # of another size too
        torch.testing.assert_close(fused(other), folded(other), rtol=1e-3, atol=1e-4 * wanted.abs().max().item())
    assert torch.equal(folded(images), wanted)
    if name in ("resnet18", "mobilenet_v2") and shift is None:  # nothing is left between the convolutions
        calls = [type(fused.get_submodule(str(node.target))) for node in fused.graph.nodes if node.op == "call_module"]
        assert set(calls) <= {fuse.FusedConv, nn.MaxPool2d}
        assert not any(node.op == "call_function" for node in fused.graph.nodes)


def make(regime: str, glancer: str = "resnet18", focuser: str = "mobilenet_v2") -> AdaFocus:
    torch.manual_seed(0)
    changes = {
        "data.num_frames": 2,
        "data.num_focus_frames": 2,
        "data.crop": 48,
        "model.glancer": glancer,
        "model.focuser": focuser,
        "model.glancer_weights": "none",
        "model.focuser_weights": "none",
        "model.glance_size": 48,
        "model.patch_size": 32,
        "model.policy_hidden": 16,
        "model.classifier_hidden": 16,
    }
    per_clip = {"data.focus_frames": "own", "model.temporal_shift": True, "model.action_per": "clip"}
    model = build_model(override(Config(), changes | (per_clip if regime == "clip" else {})), 4)
    settle(model)
    return model


@pytest.mark.parametrize("regime", ["frame", "clip"])
@torch.no_grad()
def test_the_whole_model_computes_the_same(regime: str) -> None:
    model = make(regime)
    frames = torch.randint(256, (2, 2, 3, 48, 48), dtype=torch.uint8)
    wanted = model(frames, frames)
    fast = accelerate(model)(frames, frames)
    assert torch.equal(fast.corners_BT2, wanted.corners_BT2)
    torch.testing.assert_close(fast.logits_BTK, wanted.logits_BTK, rtol=1e-3, atol=1e-4)
    halves: tuple[Precision, ...] = ("bf16", "fp16")
    for precision in halves:
        half = accelerate(model, precision=precision)(frames, frames)
        assert half.logits_BTK.dtype == torch.float32
        slack = 0.1 * wanted.logits_BTK.std().item()
        torch.testing.assert_close(half.logits_BTK, wanted.logits_BTK, rtol=0, atol=slack)
        assert not torch.equal(half.logits_BTK, wanted.logits_BTK)


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
@torch.no_grad()
def test_a_cpu_without_fused_convolutions_uses_plain_ones_and_says_so_once(
    precision: Precision, no_fused_convolutions: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    model, frames = make("untrimmed"), torch.randint(256, (2, 2, 3, 48, 48), dtype=torch.uint8)
    found = accelerate(model, precision=precision)(frames, frames).logits_BTK
    slack = (1e-4 if precision == "float32" else 0.1) * model(frames, frames).logits_BTK.abs().max().item()
    torch.testing.assert_close(found, model(frames, frames).logits_BTK, rtol=1e-3, atol=slack)
    (line,) = [record.getMessage() for record in caplog.records if record.name == fuse.__name__]
    assert f"in {DTYPES[precision]}, plain ones are used: " in line and "\n" not in line


def test_asking_for_fused_convolutions_draws_no_random_numbers() -> None:
    """Else the first step of a process would have other dropout masks than the same step after a restart."""
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    fuse.available.cache_clear()
    fuse.available(torch.float32)
    assert torch.equal(torch.rand(1), wanted)


@pytest.mark.parametrize("shift", [None, 2])
@torch.no_grad()
def test_portions_hold_whole_clips_and_change_nothing(shift: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    body = settle(build_backbone("resnet18", 2, shift_frames=shift)).get_submodule("body")
    images, whole = torch.randn(6, 3, 32, 32), FastBody(body, "float32", compile=False)
    wanted = whole(images)
    for portion in (1, 3, 4):
        monkeypatch.setattr("adafocus.acceleration.accelerate.CACHED_PIXELS", portion * 32 * 32)
        torch.testing.assert_close(whole(images), wanted, rtol=1e-4, atol=1e-5)


def test_what_trains_is_shared_and_what_is_fast_is_frozen() -> None:
    model = make("frame")
    names = list(model.state_dict())
    fast = accelerate(model)
    assert (
        fast.policy is model.policy and fast.classifier is model.classifier and fast.focuser.last is model.focuser.last
    )
    assert not any(parameter.requires_grad for parameter in fast.focuser.body.parameters())
    assert list(model.state_dict()) == names and model.focuser is not fast.focuser
    only = accelerate(model, parts=("glancer",))
    assert only.focuser is model.focuser and only.glancer is not model.glancer


@torch.no_grad()
def test_a_fast_model_that_was_used_can_be_copied() -> None:
    frames = torch.randint(256, (1, 2, 3, 48, 48), dtype=torch.uint8)
    fast = accelerate(make("frame"))
    wanted = fast(frames, frames).logits_BTK
    assert torch.equal(copy.deepcopy(fast)(frames, frames).logits_BTK, wanted)
    assert torch.equal(pickle.loads(pickle.dumps(fast))(frames, frames).logits_BTK, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("regime", ["frame", "clip"])
@torch.no_grad()
def test_a_compiled_model_computes_the_same(regime: str) -> None:
    model = make(regime, "tiny_glance", "tiny")
    frames = torch.randint(256, (2, 2, 3, 48, 48), dtype=torch.uint8)
    wanted, fast = model(frames, frames), accelerate(model, compile=True)
    for _ in range(2):  # compiled, and found compiled
        found = fast(frames, frames)
        assert torch.equal(found.corners_BT2, wanted.corners_BT2)
        torch.testing.assert_close(found.logits_BTK, wanted.logits_BTK, rtol=1e-3, atol=1e-4)
    bodies = [fast.get_submodule(f"{part}.body.body") for part in ("glancer", "focuser")]
    assert all(isinstance(body, torch._dynamo.eval_frame.OptimizedModule) for body in bodies)
    half = accelerate(model, precision="bf16", compile=True)(frames, frames)
    torch.testing.assert_close(half.logits_BTK, wanted.logits_BTK, rtol=0, atol=0.1 * wanted.logits_BTK.std().item())
