"""Multiply-adds against sums by hand and published totals."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.evaluation import multiply_adds
from adafocus.methods import build_model
from adafocus.models.adafocus import PARTS
from pipelines.recipes import RECIPES


def test_parts_by_hand() -> None:
    counts = multiply_adds.count(RECIPES["activitynet-96"](), 200)
    gru = 3 * 1024 * (1024 + 1024)
    policy = 1280 * 32 * 49 + 32 * 49 * 1024 + gru + 1024 * 49 + 1024
    assert counts["policy"] == pytest.approx(16 * policy / 1e9, rel=1e-9)
    assert counts["classifier"] == pytest.approx(16 * (3 * 1024 * (3328 + 1024) + 1024 * 200) / 1e9, rel=1e-9)
    assert counts["glancer"] / 16 == pytest.approx(0.299494, abs=1e-6)
    assert counts["focuser"] / 16 == pytest.approx(0.750698, abs=1e-6)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_attention_is_counted(device: str, tiny_config: Config) -> None:
    """Of a vision transformer with a class token, by hand."""
    changes = {"data.crop": 64, "data.resize": 64, "model.glance_size": 64, "model.patch_size": 32}
    config = override(tiny_config, {**changes, "model.glancer": "timm/test_vit", "model.focuser": "timm/test_vit"})
    with torch.device(device):
        model = build_model(config, 3).eval()
        frames = torch.zeros(1, config.data.num_frames, 3, 64, 64)
        counts = multiply_adds.count_run(model, lambda: model(frames, frames, "centre"))
    net = model.glancer.body.net
    tokens, width, depth = (64 // 16) ** 2 + 1, net.embed_dim, len(net.blocks)
    embedding = (tokens - 1) * 3 * 16 * 16 * width
    block = tokens * width * (3 * width + width + 2 * net.blocks[0].mlp.fc1.out_features) + 2 * tokens**2 * width
    assert counts["glancer"] == pytest.approx(config.data.num_frames * (embedding + depth * block) / 1e9, rel=1e-9)


def test_without_a_policy_its_part_is_free() -> None:
    config = RECIPES["activitynet-128"]()
    with_policy, random, alone = (
        multiply_adds.count(config, 200, patches=patches) for patches in ("policy", "random", None)
    )
    total = with_policy["total"] - with_policy["policy"]
    assert random == pytest.approx(with_policy | {"policy": 0.0, "total": total}, rel=1e-12)
    assert alone["total"] == pytest.approx(with_policy["glancer"] + 16 * 1280 * 200 / 1e9)


def test_a_prefix_costs_its_share() -> None:
    config = RECIPES["activitynet-128"]()
    assert multiply_adds.count(config, 200, num_frames=4)["total"] == pytest.approx(
        multiply_adds.count(config, 200)["total"] / 4
    )
    with pytest.raises(ValueError, match="as a whole"):
        multiply_adds.count(RECIPES["ssv1-144"](), 174, num_frames=4)


def test_counting_a_real_model_equals_counting_its_shadow() -> None:
    changes = {"model.glancer": "tiny", "model.focuser": "resnet18", "model.glance_size": 64, "model.patch_size": 32}
    config = override(Config(), {**changes, "model.glancer_weights": "none", "model.focuser_weights": "none"})
    model = build_model(config, 5)
    assert multiply_adds.count_model(model) == multiply_adds.count(config, 5)
    assert all(parameter.device == torch.device("cpu") for parameter in model.parameters())


def test_parameters_are_counted_by_part() -> None:
    with torch.device("meta"):
        counts = multiply_adds.parameters(build_model(RECIPES["activitynet-128"](), 1000, pretrained=False))
    assert counts["glancer"] == 3_504_872 and counts["focuser"] == 25_557_032  # as torchvision documents
    assert counts["total"] == sum(counts[part] for part in PARTS)


def test_an_exit_costs_what_has_been_computed_by_then(tiny_form: Callable[[Config], Config]) -> None:
    config = tiny_form(RECIPES["activitynet-128"]())
    costs = multiply_adds.exit_costs(config, 5)
    prefixes = [multiply_adds.count(config, 5, num_frames=number)["total"] for number in (1, 2, 3, 4)]
    assert costs == pytest.approx(prefixes) and costs[-1] == pytest.approx(multiply_adds.count(config, 5)["total"])
    whole = tiny_form(RECIPES["ssv1-144"]())
    assert multiply_adds.exit_costs(whole, 5) == [multiply_adds.count(whole, 5)["total"]] * 6
