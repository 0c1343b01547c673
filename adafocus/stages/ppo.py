"""Stage II: the policy learns where to look, everything else frozen (paper, section 3.3; PPO, Schulman et al. 2017).

The policy's state is the glancer's map alone and never depends on its actions, so a rollout is one vectorised pass: all
frames through the glancer, one recurrent pass over time, one crop and one focuser pass for all patches.

Shapes: B clips, S actions of a clip, T frames, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adafocus import distributed, reinforce
from adafocus.config import PPOConfig
from adafocus.loader import Batch
from adafocus.models.adafocus import Glance
from adafocus.stages.stage import Collected, Logs, Stage


class PPO(Stage):
    """One rollout per batch, `ppo.update_epochs` updates on it."""

    name = "ppo"
    patches = "policy"

    @property
    def settings(self) -> PPOConfig:
        return self.config.ppo

    @property
    def updates_per_batch(self) -> int:
        return self.settings.update_epochs

    def collect(self, batch: Batch) -> Collected:
        """A rollout: states, actions, their log-probabilities and normalised returns."""
        collected = super().collect(batch)
        glance = self.fast.glance(collected["glance"])
        states = self.model.states(glance)
        actions = self.model.policy(states).actions
        action = distributed.own_rows(actions.repeat(distributed.world_size()).sample(self.draws))
        rewards_BS = self._rewards(glance, self.model.policy.corners(action, self.config.data.crop), collected)
        returns_BS = reinforce.discounted_returns(rewards_BS, self.settings.gamma)
        return {
            "states": states,
            "action": action,
            "log_prob": actions.log_prob(action),
            "returns": reinforce.normalise_returns(returns_BS),
            "rewards": rewards_BS,
        }

    def _rewards(self, glance: Glance, corners_BS2: Tensor, collected: Collected) -> Tensor:
        model, kind, frames = self.fast, self.settings.reward, collected["focus"]
        patches_BTCPP = model.crop(frames, corners_BS2)
        other_BTD: Tensor | None = None
        baseline_BSK: Tensor | None = None
        if kind == "random":  # both kinds of patches in one pass
            others_BTCPP = model.crop(frames, self.random_corners(glance))
            taken_BTD, other_BTD = model.focus(torch.cat([patches_BTCPP, others_BTCPP])).chunk(2)
        else:
            taken_BTD = model.focus(patches_BTCPP)
        if kind == "padding":
            other_BTD = model.blank(glance)
        if other_BTD is not None:
            baseline_BSK = model.counterfactual(glance, taken_BTD, other_BTD)
        reached_BSK = model.decisions(model.classify(glance, taken_BTD))
        return reinforce.rewards(kind, reached_BSK, collected["target"], baseline_BSK)

    def forward(self, collected: Collected) -> tuple[Tensor, Logs]:
        """The clipped surrogate loss with value and entropy terms."""
        output = self.model.policy(collected["states"])
        loss, logs = reinforce.ppo_loss(
            self.settings,
            log_prob_BS=output.actions.log_prob(collected["action"]),
            behaviour_BS=collected["log_prob"],
            value_BS=output.value_BS,
            returns_BS=collected["returns"],
            entropy_BS=output.actions.entropy(),
        )
        reward_S = collected["rewards"].mean(0)
        steps = {f"reward_t{step + 1:02d}": reward for step, reward in enumerate(reward_S)}
        return loss, {**logs, "reward": reward_S.mean(), **steps}

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.policy.parameters(), lr=self.settings.lr)
