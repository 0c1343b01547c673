from functools import partial
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.methods import build_model
from adafocus.models import backbones
from adafocus.models.backbones import BACKBONES, build_backbone, read_weights
from adafocus.models.shift import Shifted, temporal_shift
from helpers.networks import settle
from preprocessing.schema import UserError


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_map_vector_and_logits_fit_together(name: str) -> None:
    network = build_backbone(name, 5).eval()
    images = torch.randn(2, 3, 64, 64)
    whole = network.features(images)
    feature = network.pool(whole)
    assert whole.shape[:2] == (2, network.num_features) and whole.ndim == 4
    assert torch.equal(feature, network(images))
    assert network.head(feature).shape == (2, 5)


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_parts_together_are_the_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = settle(BACKBONES[name](7))
    monkeypatch.setattr(backbones, "_compare", lambda *arguments: None)
    network = backbones._split(name, whole)
    images = torch.randn(2, 3, 64, 64)
    wanted = whole.eval()(images)
    assert wanted.std() > 1e-3
    torch.testing.assert_close(network.head(network(images)), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["densenet121", "convnext_tiny", "vit_b_16", "squeezenet1_0"])
def test_a_network_that_is_not_its_parts_is_no_backbone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by name nor for somebody who enters it in the table."""
    with pytest.raises(UserError, match=f"unknown backbone '{name}'; there are tiny, "):
        build_backbone(name, 5)
    monkeypatch.setitem(BACKBONES, name, partial(backbones._torchvision, name))
    with pytest.raises(UserError, match=f"^{name} cannot be a backbone") as caught:
        build_backbone(name, 5)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_shift_carries_time_through_every_backbone(name: str) -> None:
    torch.manual_seed(0)
    network = build_backbone(name, 2, shift_frames=4).eval()
    assert any(isinstance(module, Shifted) for module in network.modules())
    clip = torch.randn(4, 3, 64, 64)
    other = clip.clone()
    other[1] = torch.randn(3, 64, 64)
    with_time = (network(clip) != network(other)).any(1)
    assert with_time[[0, 1, 2]].all()  # a frame is seen by its neighbours


def test_shift_moves_an_eighth_each_way_and_enters_zeros() -> None:
    clips = torch.arange(2 * 3 * 16, dtype=torch.float32).reshape(6, 16, 1, 1) + 1
    x = clips.view(2, 3, 16)
    y = temporal_shift(clips, 3).view(2, 3, 16)
    assert torch.equal(y[:, :2, :2], x[:, 1:, :2]) and not y[:, 2, :2].any()
    assert torch.equal(y[:, 1:, 2:4], x[:, :2, 2:4]) and not y[:, 0, 2:4].any()
    assert torch.equal(y[:, :, 4:], x[:, :, 4:])


def test_shift_keeps_channels_last_and_passes_gradients() -> None:
    x = torch.randn(4, 8, 3, 3).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = temporal_shift(x, 2)
    assert y.is_contiguous(memory_format=torch.channels_last)
    y.sum().backward()
    assert x.grad is not None
    kept = x.grad.sum((2, 3)) / 9
    assert kept[:, 2:].eq(1).all()
    assert kept[:, 0].tolist() == [0, 1, 0, 1] and kept[:, 1].tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(("side", "cells"), [(18, 5), (20, 5), (28, 7), (44, 11)])
def test_tiny_keeps_a_map(side: int, cells: int) -> None:
    network = build_backbone("tiny_glance", 10)
    assert network.features(torch.zeros(2, 3, side, side)).shape == (2, 96, cells, cells)


@pytest.mark.parametrize("suffix", ["pth", "safetensors", "wrapped.pth"])
def test_a_weights_file_fills_the_network(tmp_path: Path, suffix: str) -> None:
    state = BACKBONES["mobilenet_v2"](6).state_dict()
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(state, path)
    elif suffix == "pth":
        torch.save(state, path)
    else:
        torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    network = build_backbone("mobilenet_v2", 6, str(path))
    assert torch.equal(network.body[0][0].weight, state["features.0.0.weight"])
    assert torch.equal(network.last[1].weight, state["classifier.1.weight"])


def test_another_number_of_classes_leaves_only_the_last_layer_fresh(tmp_path: Path) -> None:
    state = BACKBONES["mobilenet_v3_small"](6).state_dict()
    torch.save(state, tmp_path / "w.pth")
    network = build_backbone("mobilenet_v3_small", 4, str(tmp_path / "w.pth"))
    assert torch.equal(network.last[0].weight, state["classifier.0.weight"])
    assert network.last[3].weight.shape == (4, 1024)


def test_a_file_that_does_not_fit_is_refused_with_its_keys(tmp_path: Path) -> None:
    state = BACKBONES["resnet18"](6).state_dict()
    del state["layer1.0.conv1.weight"]
    state["extra"] = torch.zeros(1)
    state["conv1.weight"] = torch.zeros(3, 3)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"missing: layer1\.0\.conv1\.weight; surplus: extra; shapes: conv1\.weight"):
        build_backbone("resnet18", 6, str(tmp_path / "w.pth"))


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(UserError, match="cannot be read"):
        read_weights(tmp_path / "w.pth")


def test_offline_names_both_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    for part, other in (("glancer", "focuser"), ("focuser", "glancer")):
        words = rf"no route to host.*--set model.{part}_weights=FILE, a file.*or --set model.{part}_weights=none"
        with pytest.raises(UserError, match=words):
            build_model(override(Config(), {f"model.{other}_weights": "none"}), 5)
    with pytest.raises(UserError, match="no published ImageNet weights for 'tiny'"):
        build_backbone("tiny", 5, "imagenet")


def test_unknown_names_and_files_are_the_user_s_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown backbone 'resnet51'"):
        build_backbone("resnet51", 5)
    with pytest.raises(UserError, match="does not exist"):
        build_backbone("tiny", 5, str(tmp_path / "none.pth"))
