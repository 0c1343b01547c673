"""The arithmetic of learning where to look: rewards, returns and the PPO loss (of the reference's stage 2).

Values in, values out; every function is vectorised and reads nothing back from the device.

Shapes: B clips, S steps (actions of a clip), K classes.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from adafocus.config.schema import PPOConfig, Reward

NEEDS_BASELINE = ("random", "padding")
"""Rewards that compare with the logits of another patch."""


def confidence(logits_BSK: Tensor, labels_B: Tensor) -> Tensor:
    """Softmax probability of the true class, float32 (B, S). Labels are class indices, not padding."""
    probability_BSK = logits_BSK.float().softmax(-1)
    index_BS1 = labels_B.view(-1, 1, 1).expand(-1, logits_BSK.shape[1], 1)
    return probability_BSK.gather(-1, index_BS1).squeeze(-1)


def rewards(kind: Reward, logits_BSK: Tensor, labels_B: Tensor, baseline_BSK: Tensor | None = None) -> Tensor:
    """Reward of every action, float32 (B, S), without gradient.

    `random` (the reference's default) and `padding`: confidence minus that of `baseline_BSK`, the logits had this one
    action led to a random, or a blank, patch. `previous`: increase over the step before, where nothing seen counts as
    0, so that the rewards sum to the last confidence. `confidence`: itself. Raises ValueError for a missing baseline.
    """
    reached_BS = confidence(logits_BSK, labels_B).detach()
    if kind in NEEDS_BASELINE:
        if baseline_BSK is None:
            raise ValueError(f"reward {kind!r} needs the baseline's logits")
        return reached_BS - confidence(baseline_BSK, labels_B).detach()
    if kind == "previous":
        return reached_BS.diff(dim=1, prepend=torch.zeros_like(reached_BS[:, :1]))
    if kind == "confidence":
        return reached_BS
    raise ValueError(f"unknown reward {kind!r}")


def discounted_returns(rewards_BS: Tensor, gamma: float) -> Tensor:
    """R_t = r_t + gamma * R_{t+1}: (B, S), as one product with the matrix of gamma^(s - t), s >= t."""
    steps = torch.arange(rewards_BS.shape[1], device=rewards_BS.device)
    ahead_SS = steps[:, None] - steps[None, :]  # [s, t] = s - t
    weights_SS = torch.where(ahead_SS >= 0, gamma ** ahead_SS.clamp(min=0).to(rewards_BS.dtype), 0.0)
    return rewards_BS @ weights_SS


def normalise_returns(returns_BS: Tensor) -> Tensor:
    """(R - mean) / (standard deviation + 1e-5) over all steps of all clips: `returns_BS` are a worker's of one update.

    With several workers, over all of theirs: the update is then that of one worker with the whole batch. Of a batch in
    micro-batches all returns go in at once, or each micro-batch would get a mean of its own.
    """
    number = returns_BS.new_full((), returns_BS.numel())  # made on the device: to copy it there would wait
    count, total = sum_over_workers(number, returns_BS.sum())
    centred = returns_BS - total / count
    (squares,) = sum_over_workers(centred.square().sum())
    return centred / ((squares / (count - 1).clamp(min=1)).sqrt() + 1e-5)


def sum_over_workers(*values: Tensor) -> tuple[Tensor, ...]:
    """Scalars, each summed over the workers."""
    if not (dist.is_available() and dist.is_initialized()):
        return values
    stacked = torch.stack(values)
    dist.all_reduce(stacked)
    return tuple(stacked.unbind())


def surrogate(ratio_BS: Tensor, advantage_BS: Tensor, clip: float) -> Tensor:
    """PPO's clipped surrogate loss, a mean over all steps: `ratio_BS` is of new to old probability of the actions."""
    clipped_BS = ratio_BS.clamp(1 - clip, 1 + clip)
    return -torch.minimum(ratio_BS * advantage_BS, clipped_BS * advantage_BS).mean()


def ppo_loss(
    config: PPOConfig,
    *,
    log_prob_BS: Tensor,
    behaviour_BS: Tensor,
    value_BS: Tensor,
    returns_BS: Tensor,
    entropy_BS: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped surrogate + value_coef * squared error - entropy_coef * entropy, a mean over all steps.

    `behaviour_BS` are the log-probabilities of the actions under the policy that took them, `returns_BS` the
    normalised ones. Diagnostics are 0-d tensors without gradient: policy_loss, value_loss, entropy, approx_kl
    (the estimator ratio - 1 - log ratio), clip_fraction, explained_variance (of the returns by the critic; 0 if the
    returns do not vary), ratio (its mean: 1 in the first pass over a rollout).
    """
    log_ratio_BS = log_prob_BS - behaviour_BS.detach()
    ratio_BS = log_ratio_BS.exp()
    advantage_BS = returns_BS - value_BS.detach()
    policy_loss = surrogate(ratio_BS, advantage_BS, config.clip)
    value_loss = (value_BS - returns_BS).square().mean()
    entropy = entropy_BS.mean()
    loss = policy_loss + config.value_coef * value_loss - config.entropy_coef * entropy
    with torch.no_grad():
        spread = returns_BS.var(correction=0)
        unexplained = (returns_BS - value_BS).var(correction=0)
        diagnostics = {
            "policy_loss": policy_loss.detach(),
            "value_loss": value_loss.detach(),
            "entropy": entropy.detach(),
            "approx_kl": (ratio_BS - 1 - log_ratio_BS).mean(),
            "clip_fraction": ((ratio_BS - 1).abs() > config.clip).float().mean(),
            "explained_variance": torch.where(spread > 0, 1 - unexplained / spread, 0.0),
            "ratio": ratio_BS.mean(),
        }
    return loss, diagnostics
