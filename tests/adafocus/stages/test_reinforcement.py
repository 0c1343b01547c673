import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adafocus.config.schema import PPOConfig
from adafocus.stages.reinforcement import discounted_returns, normalise_returns, ppo_loss, rewards


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 20), st.floats(0, 1), st.integers(0, 2**31))
def test_returns_follow_their_recursion(batch: int, steps: int, gamma: float, seed: int) -> None:
    reward = torch.randn(batch, steps, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found, later = discounted_returns(reward, gamma), torch.zeros(batch, dtype=torch.float64)
    for step in reversed(range(steps)):
        later = reward[:, step] + gamma * later
        torch.testing.assert_close(found[:, step], later)


def test_returns_are_normalised_over_the_batch() -> None:
    returns = torch.randn(4, 6) * 3 + 2
    wanted = (returns - returns.mean()) / (returns.std() + 1e-5)
    torch.testing.assert_close(normalise_returns(returns), wanted)
    assert normalise_returns(torch.ones(1, 1)).item() == 0
    assert not normalise_returns(torch.full((2, 2), 0.5)).any()


def logits_with(confidence: list[list[float]]) -> Tensor:
    """Two classes; class 1 has the given probabilities."""
    p = torch.tensor(confidence)
    return torch.stack([(1 - p).log(), p.log()], -1)


def test_rewards_by_hand() -> None:
    reached, baseline = logits_with([[0.2, 0.5, 0.4]]), logits_with([[0.1, 0.6, 0.4]])
    label = torch.tensor([1])
    for kind, wanted in {
        "random": [0.1, -0.1, 0.0],
        "padding": [0.1, -0.1, 0.0],
        "confidence": [0.2, 0.5, 0.4],
        "previous": [0.2, 0.3, -0.1],
    }.items():
        found = rewards(kind, reached, label, baseline)
        torch.testing.assert_close(found, torch.tensor([wanted]))
    with pytest.raises(ValueError, match="needs the baseline"):
        rewards("random", reached, label)


def test_rewards_carry_no_gradient() -> None:
    reached = logits_with([[0.2, 0.5]]).requires_grad_()
    assert not rewards("random", reached, torch.tensor([1]), reached).requires_grad


def loss_of(log_prob: Tensor, behaviour: Tensor, value: Tensor, returns: Tensor, entropy: Tensor, config: PPOConfig):
    return ppo_loss(
        config,
        log_prob_BS=log_prob,
        behaviour_BS=behaviour,
        value_BS=value,
        returns_BS=returns,
        entropy_BS=entropy,
    )


def test_first_pass_has_ratio_one_and_the_policy_gradient() -> None:
    log_prob = torch.randn(3, 5).requires_grad_()
    value, returns = torch.randn(3, 5).requires_grad_(), torch.randn(3, 5)
    config = PPOConfig(value_coef=0.5, entropy_coef=0.0)
    loss, logs = loss_of(log_prob, log_prob.detach(), value, returns, torch.zeros(3, 5), config)
    loss.backward()
    assert logs["ratio"] == 1 and logs["approx_kl"] == 0 and logs["clip_fraction"] == 0
    assert log_prob.grad is not None and value.grad is not None
    torch.testing.assert_close(log_prob.grad, -(returns - value.detach()) / 15)
    torch.testing.assert_close(value.grad, (value.detach() - returns) / 15)


def test_clipping_stops_the_gradient_only_where_it_would_go_on() -> None:
    behaviour = torch.zeros(1, 4)
    log_prob = torch.tensor([[1.5, 1.5, 0.5, 0.5]]).log().requires_grad_()
    returns = torch.tensor([[1.0, -1.0, 1.0, -1.0]])  # the advantages, for values of 0
    loss, logs = loss_of(log_prob, behaviour, torch.zeros(1, 4), returns, torch.zeros(1, 4), PPOConfig(clip=0.2))
    loss.backward()
    assert log_prob.grad is not None
    assert (log_prob.grad != 0).tolist() == [[False, True, True, False]]
    assert logs["clip_fraction"] == 1
    assert logs["policy_loss"].item() == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8) / 4)


def test_loss_is_the_sum_of_its_terms() -> None:
    parts = [torch.randn(2, 3) for _ in range(4)]
    entropy = torch.rand(2, 3)
    config = PPOConfig(value_coef=0.7, entropy_coef=0.3)
    loss, logs = loss_of(*parts, entropy, config)
    wanted = logs["policy_loss"] + 0.7 * logs["value_loss"] - 0.3 * entropy.mean()
    torch.testing.assert_close(loss, wanted)
    assert logs["approx_kl"] >= 0


def test_explained_variance() -> None:
    returns, zeros = torch.tensor([[1.0, 2.0, 3.0]]), torch.zeros(1, 3)
    for value, wanted in ((returns + 5, 1.0), (zeros, 0.0), (-returns, -3.0)):
        _, logs = loss_of(zeros, zeros, value, returns, zeros, PPOConfig())
        assert logs["explained_variance"].item() == pytest.approx(wanted)
    assert loss_of(zeros, zeros, returns, zeros, zeros, PPOConfig())[1]["explained_variance"] == 0
