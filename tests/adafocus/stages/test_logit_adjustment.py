"""Classes of unequal frequency: what the adjusted loss is, and that every supervised stage learns by it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.methods import build_model, method_of
from adafocus.stages.stage import Stage
from adafocus.training.reports import Options
from adafocus.training.stage_runner import run_stage
from helpers.tiny import UNI, noise_batch

METHOD_CHANGES: dict[str, dict[str, object]] = {
    "pretrain": {},
    "warmup": {},
    "finetune": {},
    "joint": {"method": "adafocus-v2"},
    "unified": UNI,
}
SHARES_K = torch.tensor([0.6, 0.3, 0.1])


def stage_of(name: str, config: Config, **settings: float) -> Stage:
    """A tiny model's stage for three classes."""
    config = override(config, {**METHOD_CHANGES[name], **{f"{name}.{key}": value for key, value in settings.items()}})
    torch.manual_seed(0)
    return method_of(config).stage(name)(build_model(config, 3), config)


def test_the_loss_is_equation_10(tiny_config: Config) -> None:
    """-log(share_y^tau e^f_y / sum_k share_k^tau e^f_k), written out; at 0 the plain cross-entropy."""
    torch.manual_seed(0)
    logits_BTK, target_B = torch.randn(5, 4, 3), torch.tensor([0, 1, 2, 2, 0])
    stage = stage_of("warmup", tiny_config, logit_adjustment=1.5, label_smoothing=0.0)
    stage.class_shares_K = SHARES_K
    weighted_BTK = SHARES_K**1.5 * logits_BTK.exp()
    chosen_BT = weighted_BTK[torch.arange(5), :, target_B] / weighted_BTK.sum(-1)
    torch.testing.assert_close(stage.judge(logits_BTK, target_B), -chosen_BT.log().mean())
    plain = stage_of("warmup", tiny_config, label_smoothing=0.0)
    expected = F.cross_entropy(logits_BTK.transpose(1, 2), target_B[:, None].expand(5, 4))
    torch.testing.assert_close(plain.judge(logits_BTK, target_B), expected)


def shares_learnt(stage: Stage, target_B: Tensor) -> Tensor:
    """What logits that see nothing come to predict by the stage's loss, (3,) of sum 1."""
    logits_K = torch.tensor([1.0, -1.0, 0.5], requires_grad=True)
    optimizer = torch.optim.LBFGS([logits_K], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        value = stage.judge(logits_K.expand(len(target_B), 1, 3), target_B)
        value.backward()
        return value.item()

    optimizer.step(loss)
    return logits_K.detach().softmax(0)


def test_where_nothing_tells_the_classes_apart_no_class_is_preferred(tiny_config: Config) -> None:
    """Of clips of which 6, 3 and 1 in 10 are of each class these shares are learnt, with an adjustment of 1 none."""
    target_B = torch.tensor([0] * 6 + [1] * 3 + [2])
    for strength, expected in ((0.0, SHARES_K), (1.0, torch.full((3,), 1 / 3))):
        stage = stage_of("warmup", tiny_config, logit_adjustment=strength, label_smoothing=0.0)
        stage.class_shares_K = SHARES_K
        torch.testing.assert_close(shares_learnt(stage, target_B), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", METHOD_CHANGES)
def test_every_supervised_stage_learns_by_it(name: str, tiny_config: Config) -> None:
    """Equal shares, which are those of a stage that was not told any, change no loss of a step; unequal ones do."""

    def loss(shares_K: Tensor | None = None, **settings: float) -> Tensor:
        stage = stage_of(name, tiny_config, **settings)
        if shares_K is not None:
            stage.class_shares_K = shares_K
        stage.eval()
        stage.draws.manual_seed(0)
        with torch.no_grad():
            collected = stage.collect(noise_batch(stage.config, 4, 3, seed=1))
            return stage(collected)[0]

    plain = loss()
    torch.testing.assert_close(loss(logit_adjustment=2.0), plain)
    assert (loss(SHARES_K, logit_adjustment=1.0) - plain).abs() > 0.01


@pytest.mark.parametrize("reader", ["random", "stream"])
def test_training_takes_the_shares_of_its_clips(
    reader: str, synthetic_shards: str, tiny_config: Config, tmp_path: Path
) -> None:
    """A whole training by the adjusted loss ends with other weights; ten equal shares would change the last digit."""
    weights = []
    for strength in (0.0, 1.0):
        folder = run_stage(
            "pretrain",
            override(tiny_config, {"pretrain.logit_adjustment": strength, "data.reader": reader}),
            shards=synthetic_shards,
            runs=tmp_path / str(strength),
            options=Options(device="cpu"),
            report=lambda row: None,
        )
        weights.append(load_file(next(folder.glob("weights-*.safetensors")))["focuser.last.1.weight"])
    assert (weights[0] - weights[1]).abs().max() > 1e-3
