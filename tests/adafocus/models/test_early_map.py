"""Networks that end at a stride: the providers' own maps there, and what is refused."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor
from torchvision.models.feature_extraction import create_feature_extractor

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.methods import build_model
from adafocus.models.backbones import build_backbone
from helpers.networks import settle
from preprocessing.schema import UserError

LAYERS = {
    ("resnet18", 16): "layer3",
    ("resnet18", 4): "layer1",
    ("mobilenet_v2", 16): "features.13",
    ("efficientnet_b0", 8): "features.3",
    ("regnet_y_400mf", 16): "trunk_output.block3",
    ("convnext_tiny", 16): "features.5",
}
"""Names of the last layers of a stride, by torchvision."""


def image() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "stride"), LAYERS)
@torch.no_grad()
def test_the_map_is_that_of_torchvisions_layer(name: str, stride: int) -> None:
    torch.manual_seed(0)
    whole = settle(torchvision.models.get_model(name, num_classes=5)).eval()
    torch.manual_seed(0)
    early = settle(build_backbone(name, 5, stride=stride)).eval()
    state = {key.removeprefix("body."): value for key, value in early.state_dict().items()}
    shared = {key: value for key, value in whole.state_dict().items() if key.removeprefix("features.") in state}
    early.body.load_state_dict({key.removeprefix("features."): value for key, value in shared.items()})
    node = LAYERS[name, stride]
    assert early.to_map(early.features(image())).equal(create_feature_extractor(whole, [node])(image())[node])


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "test_resnet", "test_convnext", "mobilenetv4_conv_small_050"]
)
@torch.no_grad()
def test_the_map_is_that_of_timm(name: str) -> None:
    import timm

    maps = timm.create_model(name, features_only=True).eval()
    strides = maps.feature_info.reduction()
    early = build_backbone(f"timm/{name}", 5, stride=strides[-2]).eval()
    assert len(early.state_dict()) < len(build_backbone(f"timm/{name}", 5).state_dict())
    flat = {key.replace(".", "_"): value for key, value in maps.state_dict().items()}
    own = early.body.net.state_dict()
    early.body.net.load_state_dict({key: flat[key.replace(".", "_")] for key in own})
    assert early.to_map(early.body(image())).equal(maps(image())[-2])


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "tiny", "timm/test_resnet"])
@torch.no_grad()
def test_vector_and_logits_fit_and_nothing_was_learnt(name: str) -> None:
    early = build_backbone(name, 5, stride=4)
    assert early.training and not any(
        value.ne(0).any()
        for key, value in early.state_dict().items()
        if key.endswith(("running_mean", "batches_tracked"))
    )
    features = early.eval().features(image())
    assert early.to_map(features).shape == (2, early.num_channels, 16, 16)
    assert early.pool(features).allclose(features.mean((-2, -1)))
    assert early.head(early.pool(features)).shape == (2, 5)


def test_strides_that_a_network_does_not_have_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"glance_stride is 5, but maps of resnet18 have strides of 2, 4, 8, 16, 32: set"
    ):
        build_backbone("resnet18", 5, stride=5)
    with pytest.raises(UserError, match=r"glance_stride is 64, but maps of timm/test_resnet have strides of 2, 4, 8"):
        build_backbone("timm/test_resnet", 5, stride=64)
    with pytest.raises(UserError, match=r"timm/test_vit has one map only: set model.glance_stride=0"):
        build_backbone("timm/test_vit", 5, stride=16)


@torch.no_grad()
def test_the_policy_sees_the_finer_map(tiny_config: Config) -> None:
    """And the focuser is as it was."""
    config = override(tiny_config, {"model.glancer": "mobilenet_v2", "model.glance_size": 64})
    whole, early = (build_model(override(config, {"model.glance_stride": s}), 10).eval() for s in (0, 16))
    frames = torch.zeros(1, config.data.num_frames, 3, config.data.crop, config.data.crop, dtype=torch.uint8)
    assert whole.glance(frames).map_BTDhw.shape[2:] == (1280, 2, 2)
    assert early.glance(frames).map_BTDhw.shape[2:] == (96, 4, 4)
    assert early(frames, frames).logits_BTK.shape == (1, config.data.num_frames, 10)
    assert early.focuser.num_features == whole.focuser.num_features
