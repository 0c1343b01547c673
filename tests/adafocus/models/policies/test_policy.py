import math
from typing import Any

import pytest
import torch
from torch.distributions import Categorical, Independent, Normal

from adafocus.config.schema import ModelConfig
from adafocus.models.policies.policy import GaussianActions, GridActions, Policy

SMALL: dict[str, Any] = {"patch_size": 12, "grid_size": 3, "policy_channels": 4, "policy_hidden": 8}


def make(**changes: Any) -> Policy:
    torch.manual_seed(0)
    return Policy(ModelConfig(**(SMALL | changes)), 6, (3, 3)).eval()


def test_grid_agrees_with_torch_s_categorical() -> None:
    logits = torch.randn(3, 4, 9)
    ours, wanted = GridActions(logits.log_softmax(-1)), Categorical(logits=logits)
    action = ours.sample()
    torch.testing.assert_close(ours.log_prob(action), wanted.log_prob(action))
    torch.testing.assert_close(ours.entropy(), wanted.entropy())
    assert torch.equal(ours.mode(), logits.argmax(-1))


def test_gaussian_agrees_with_torch_s_normal() -> None:
    mean = torch.rand(3, 4, 2)
    ours, wanted = GaussianActions(mean, 0.25), Independent(Normal(mean, 0.25), 1)
    action = ours.sample()
    assert action.min() >= 0 and action.max() <= 1
    torch.testing.assert_close(ours.log_prob(action), wanted.log_prob(action))
    torch.testing.assert_close(ours.entropy(), wanted.entropy())
    assert torch.equal(ours.mode(), mean)


def test_grid_samples_follow_the_probabilities() -> None:
    probability = torch.tensor([0.05, 0.15, 0.3, 0.5])
    actions = GridActions(probability.log().expand(50_000, 1, 4))
    share = actions.sample(torch.Generator().manual_seed(1)).flatten().bincount(minlength=4) / 50_000
    assert (share - probability).abs().max() < 0.01


def test_gaussian_samples_follow_the_density() -> None:
    sample = GaussianActions(torch.full((50_000, 1, 2), 0.5), 0.1).sample(torch.Generator().manual_seed(1))
    assert sample.mean().item() == pytest.approx(0.5, abs=0.005)
    assert sample.std().item() == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("action", ["grid", "gaussian"])
def test_a_generator_decides_the_samples(action: str) -> None:
    policy = make(action=action)
    actions = policy(torch.randn(2, 5, 6, 3, 3)).actions
    first, second, third = (actions.sample(torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, second) and not torch.equal(first, third)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("action", ["grid", "gaussian"])
@torch.no_grad()
def test_step_by_step_equals_the_whole_sequence(action: str, norm: bool) -> None:
    policy = make(action=action, policy_norm=norm)
    maps = torch.randn(2, 5, 6, 3, 3)
    whole, hidden = policy(maps), None
    mode = whole.actions.mode()
    for step in range(5):
        output = policy(maps[:, step : step + 1], hidden)
        hidden = output.hidden_1BD
        torch.testing.assert_close(output.value_BS[:, 0], whole.value_BS[:, step])
        torch.testing.assert_close(output.actions.mode()[:, 0], mode[:, step])
        torch.testing.assert_close(
            output.actions.log_prob(mode[:, step : step + 1])[:, 0], whole.actions.log_prob(mode)[:, step]
        )


def test_values_and_probabilities_are_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        output = make()(torch.randn(1, 2, 6, 3, 3))
    assert output.value_BS.dtype == output.actions.log_prob(output.actions.mode()).dtype == torch.float32
    torch.testing.assert_close(output.actions.log_probs_BSA.exp().sum(-1), torch.ones(1, 2))


def test_corners_of_both_action_spaces() -> None:
    assert make().corners(torch.tensor([[0, 5, 8]]), 20).tolist() == [[[0, 0], [4, 8], [8, 8]]]
    position = torch.tensor([[[0.0, 0.51], [1.0, 0.99]]])
    assert make(action="gaussian").corners(position, 20).tolist() == [[[0, 4], [8, 7]]]


def test_entropy_has_its_closed_forms() -> None:
    uniform = GridActions(torch.zeros(1, 1, 49).log_softmax(-1))
    assert uniform.entropy().item() == pytest.approx(math.log(49), rel=1e-6)
    gaussian = GaussianActions(torch.zeros(1, 1, 2), 0.25)
    assert gaussian.entropy().item() == pytest.approx(math.log(2 * math.pi * math.e * 0.25**2), rel=1e-6)


@pytest.mark.parametrize(("grid_size", "actions"), [(4, 16), (5, 25), (7, 49), (10, 100)])
def test_grids_of_16_to_100_cells(grid_size: int, actions: int) -> None:
    output = make(grid_size=grid_size)(torch.randn(1, 2, 6, 3, 3))
    assert output.actions.log_probs_BSA.shape == (1, 2, actions)
