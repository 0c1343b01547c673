"""Image networks: in parts they compute what they compute as a whole, and say in a line what does not fit."""

import copy
import os
import re
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.methods import build_model
from adafocus.models import backbones
from adafocus.models.backbones import BACKBONES, Backbone, build_backbone, read_weights, torchvision_networks
from adafocus.models.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD
from adafocus.models.backbones.tiny import Tiny
from adafocus.models.shift import Shifted, temporal_shift
from helpers.networks import settle
from preprocessing.schema import UserError

TIMM = [
    *("timm/tf_efficientnet_lite0", "timm/mobilenetv3_small_050", "timm/mobilenetv4_conv_small_050"),
    *("timm/test_resnet", "timm/test_efficientnet", "timm/test_byobnet", "timm/test_convnext", "timm/test_vit"),
    *("timm/test_vit2", "timm/test_vit3", "timm/vit_tiny_patch16_224", "timm/swin_tiny_patch4_window7_224"),
    *("timm/mobilevit_xxs", "timm/efficientvit_b0", "timm/edgenext_xx_small"),
]
"""Small networks of each kind: convolutional, mixed, and vision transformers with and without a class token."""


@pytest.fixture(scope="module")
def timm() -> ModuleType:
    """The package, which is slow to import: not in every process that collects tests."""
    import timm

    return timm


def side_for(network: Backbone) -> int:
    return 4 * network.step if network.step > 1 else 64


@pytest.mark.parametrize("name", [*BACKBONES, *TIMM])
@torch.no_grad()
def test_map_vector_and_logits_fit_together(name: str) -> None:
    network = build_backbone(name, 5).eval()
    side = side_for(network)
    features = network.features(torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)))
    shown, feature = network.to_map(features), network.pool(features)
    assert shown.shape[:2] == (2, network.num_channels) and shown.shape[2] == shown.shape[3]
    assert feature.shape == (2, network.num_features) and network.head(feature).shape == (2, 5)


@pytest.mark.parametrize("name", [*BACKBONES, *TIMM])
@torch.no_grad()
def test_parts_together_are_the_network(name: str, timm: ModuleType) -> None:
    """As itself, without our wrapper, on images normalised as it was published."""
    short = name.removeprefix("timm/")
    whole = settle(timm.create_model(short, num_classes=7) if name != short else BACKBONES[name](7))
    network = backbones.take_apart(name, copy.deepcopy(whole))
    side = whole.pretrained_cfg["input_size"][-1] if network.step > 1 else 64
    if "swin" in name:
        side = 224
    pixels_NCHW = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    statistics = whole.pretrained_cfg if name != short else {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    values = (statistics["mean"], statistics["std"], IMAGENET_MEAN, IMAGENET_STD)
    mean, std, usual, spread = (torch.tensor(each).view(3, 1, 1) for each in values)
    wanted = whole.eval()((pixels_NCHW - mean) / std)
    assert wanted.std() > 1e-3
    found = network.eval().head(network((pixels_NCHW - usual) / spread))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item())


@pytest.mark.parametrize("name", ["vit_b_16", "squeezenet1_0"])
def test_a_network_that_is_not_its_parts_is_no_backbone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by name nor for somebody who enters it in the table."""
    with pytest.raises(UserError, match=f"unknown backbone '{name}'; there are tiny, .*timm/NAME"):
        build_backbone(name, 5)
    monkeypatch.setitem(BACKBONES, name, partial(torchvision_networks.build, name))
    with pytest.raises(UserError, match=f"^{name} cannot be a backbone") as caught:
        build_backbone(name, 5)
    assert "\n" not in str(caught.value)


def test_parts_that_give_other_logits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Halved(Tiny):
        def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
            return super().forward(images_NCHW) / 2

    monkeypatch.setitem(BACKBONES, "halved", partial(Halved, strides=(2, 2, 2, 1)))
    with pytest.raises(UserError, match=r"^halved cannot be a backbone: its parts do not give the whole"):
        build_backbone("halved", 5)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("timm/vit_tiny_patch16_225", "did you mean timm/vit_tiny_patch16_224?"),
        ("timm/repvit_m1", "its last layer is RepVitClassifier"),
    ],
)
def test_networks_of_timm_that_are_refused(name: str, wrong: str) -> None:
    with pytest.raises(UserError, match=re.escape(wrong)):
        build_backbone(name, 5)


def test_without_timm_its_networks_are_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"need timm: in a checkout of AdaFocus, pip install '\.\[timm\]'"):
        build_backbone("timm/test_vit", 5)


def test_sides_that_do_not_fit_the_pieces_are_refused_with_the_nearest(tiny_config: Config) -> None:
    changes = {"data.crop": 160, "data.resize": 160, "model.glance_size": 64, "model.patch_size": 64}
    config = override(tiny_config, {**changes, "model.focuser": "timm/test_vit", "model.glancer": "timm/test_vit"})
    with torch.device("meta"):
        assert build_model(config, 3).policy.encoder[0].in_channels == 64
    for setting, value, words in (
        ("model.patch_size", 100, "model.patch_size=96 or model.patch_size=112"),
        ("model.glance_size", 72, "model.glance_size=64 or model.glance_size=80"),
        ("model.patch_size", 8, "model.patch_size=16"),
        ("data.crop", 150, "data.crop=144 or data.crop=160"),
    ):
        with pytest.raises(UserError, match=rf"^{setting} is {value}, .* pieces of 16x16 pixels: set {words}$"):
            build_model(override(config, {setting: value}), 3)
    with pytest.raises(UserError, match=r"glance_size is 64, a size that timm/hiera_tiny_224 does not take"):
        build_model(override(config, {"model.glancer": "timm/hiera_tiny_224"}), 3)


@torch.no_grad()
def test_the_map_of_a_transformer_has_its_tokens_where_the_picture_has_them() -> None:
    network = build_backbone("timm/test_vit", 5).eval()
    for block in network.body.net.blocks:  # attention would carry what one token sees to all
        block.attn.proj.weight.zero_()
        block.attn.proj.bias.zero_()
    black = torch.zeros(1, 3, 64, 64)
    spot = black.clone()
    spot[:, :, 16:32, 48:64] = 1
    changed = (network.to_map(network.features(spot)) - network.to_map(network.features(black))).abs().sum(1)[0] > 1e-6
    assert changed.nonzero().tolist() == [[1, 3]]


CAN_SHIFT = [name for name in BACKBONES if name != "densenet121"]
CAN_SHIFT += ["timm/tf_efficientnet_lite0", "timm/test_resnet", "timm/test_convnext", "timm/mobilenetv4_conv_small_050"]


@pytest.mark.parametrize("name", CAN_SHIFT)
@torch.no_grad()
def test_shift_carries_time_through_every_backbone(name: str) -> None:
    torch.manual_seed(0)
    network = settle(build_backbone(name, 2, shift_frames=4))
    assert any(isinstance(module, Shifted) for module in network.modules())
    clip = torch.randn(4, 3, 64, 64)
    other = clip.clone()
    other[1] = torch.randn(3, 64, 64)
    with_time = (network(clip) != network(other)).any(1)
    assert with_time[[0, 1, 2]].all()  # a frame is seen by its neighbours


@pytest.mark.parametrize("name", ["densenet121", "timm/test_vit"])
def test_networks_without_a_place_for_the_shift_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} has no residual convolutions .*model.temporal_shift=false"):
        build_backbone(name, 2, shift_frames=4)


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


@pytest.mark.parametrize("name", ["timm/tf_efficientnet_lite0", "timm/test_vit", "timm/test_resnet"])
@torch.no_grad()
def test_fresh_last_layers_of_timm_are_not_sure_of_anything(name: str) -> None:
    """timm's own start gives logits of 8 for four classes, and with them a loss far above that of guessing."""
    torch.manual_seed(0)
    network = build_backbone(name, 4).eval()
    logits = network.head(torch.rand(64, network.num_features))
    assert logits.std() < 0.5


def test_offline_timm_names_both_ways_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    words = r"timm/test_resnet \(no route to host\): .*weights=FILE, a file with timm's.*or --set weights=none$"
    with pytest.raises(UserError, match=words):
        build_backbone("timm/test_resnet", 5, "imagenet")


def test_published_weights_of_timm_fill_the_network(timm: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    published = timm.create_model("test_resnet").state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *args, **kwargs: dict(published))
    network = build_backbone("timm/test_resnet", 5, "imagenet")
    assert torch.equal(network.body.net.bn1.weight, published["bn1.weight"])
    assert network.last[1].weight.shape == (5, 96)


def test_a_file_with_timm_s_names_fills_its_network_key_for_key(timm: ModuleType, tmp_path: Path) -> None:
    """`ADAFOCUS_LITE0_WEIGHTS` may name a file of real weights."""
    path = Path(os.environ.get("ADAFOCUS_LITE0_WEIGHTS", tmp_path / "w.pth"))
    if not path.exists():
        torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), path)
    state = read_weights(path)
    network = build_backbone("timm/tf_efficientnet_lite0", 1000, str(path))
    own = {name.removeprefix("net."): value for name, value in network.body.state_dict().items()}
    own |= {f"classifier.{name}": value for name, value in network.last[1].state_dict().items()}
    assert own.keys() >= state.keys() and all(torch.equal(own[name], value) for name, value in state.items())


def test_unknown_names_and_files_are_the_user_s_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown backbone 'resnet51'"):
        build_backbone("resnet51", 5)
    with pytest.raises(UserError, match="does not exist"):
        build_backbone("tiny", 5, str(tmp_path / "none.pth"))
