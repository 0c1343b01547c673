"""Stage II: the policy learns where to look, everything else frozen (as the reference; PPO: Schulman et al. 2017).

The policy's state is the glancer's map alone and never depends on its actions, so a rollout is one vectorised pass: all
frames through the glancer, one recurrent pass over time, one crop and one focuser pass for all patches.

Shapes: B clips, S actions of a clip, T frames, K classes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from adafocus.config.schema import PPOConfig
from adafocus.data.loader import Batch
from adafocus.models.crop import patch_covers
from adafocus.models.outputs import Glance
from adafocus.stages import reinforcement
from adafocus.stages.stage import Collected, Logs, Stage
from preprocessing.schema import UserError


class PPO(Stage):
    """One rollout per batch, `ppo.update_epochs` updates on it."""

    name = "ppo"
    trains = ("policy",)
    reads = (*("model.action", "model.action_std", "model.grid_size", "model.policy"), "ppo")
    patches = "policy"
    whole_batch = True  # returns are normalised over it
    # The policy is small, its ratios are differences of near numbers, and a GRU in bf16 is slower on CPUs.
    learns_in_half = False

    @property
    def settings(self) -> PPOConfig:
        return self.config.ppo

    @property
    def updates_per_batch(self) -> int:
        return self.settings.update_epochs

    def check_batch(self, clips: int) -> None:
        """Batch norm in the policy takes its statistics from one worker's micro-batch: one state has none."""
        states = clips * self.config.data.num_frames // self.model.maps_per_state
        if self.config.model.policy_norm and states < 2:
            raise UserError(
                "model.policy_norm needs two clips in a micro-batch of one worker, and ppo.batch_size="
                f"{self.settings.batch_size} with ppo.accumulate={self.settings.accumulate} leaves one: raise the one, "
                "lower the other, or set model.policy_norm=false"
            )

    def collect(self, batch: Batch) -> Collected:
        """A rollout: states, actions, their log-probabilities and discounted returns.

        The policy's batch norms use the micro-batch's statistics, as in the update, but do not remember them: the
        update does, once a pass. (The reference acts with a copy of the policy, whose own are overwritten.)
        """
        collected = super().collect(batch)
        glance = self.fast.glance(collected["glance"])
        states = self.model.states(glance)
        with forgetting(self.model.policy):
            actions = self.model.policy(states).actions
        places = self.own_places(len(states)).to(states.device, non_blocking=True)
        action = self.own_rows(actions.take(places).sample(self.draws))
        corners_BS2 = self.model.policy.corners(action, self.config.data.crop)
        rewards_BS = self._rewards(glance, corners_BS2, collected)
        if self.settings.box_reward:
            rewards_BS = rewards_BS + self.settings.box_reward * self._covered(corners_BS2, batch)
        returns_BS = reinforcement.discounted_returns(rewards_BS, self.settings.gamma)
        return {
            "states": states,
            "action": action,
            "log_prob": actions.log_prob(action),
            "returns": returns_BS,
            "rewards": rewards_BS,
        }

    def prepare(self, collected: list[Collected]) -> None:
        """Normalise the returns over the global batch: all micro-batches of all workers."""
        sizes = [len(rollout["returns"]) for rollout in collected]
        returns_BS = reinforcement.normalise_returns(torch.cat([rollout["returns"] for rollout in collected]))
        for rollout, own_BS in zip(collected, returns_BS.split(sizes), strict=True):
            rollout["returns"] = own_BS

    def _rewards(self, glance: Glance, corners_BS2: Tensor, collected: Collected) -> Tensor:
        model, kind, frames = self.fast, self.settings.reward, collected["focus"]
        patches_BTCPP = model.crop(frames, corners_BS2)
        other_BTD: Tensor | None = None
        baseline_BSK: Tensor | None = None
        if kind == "random":  # both kinds of patches in one pass
            others_BTCPP = model.crop(frames, self.random_corners(collected["glance"]))
            taken_BTD, other_BTD = model.focus(torch.cat([patches_BTCPP, others_BTCPP])).chunk(2)
        else:
            taken_BTD = model.focus(patches_BTCPP)
        if kind == "padding":
            other_BTD = model.blank(glance)
        if other_BTD is not None:
            baseline_BSK = model.counterfactual(glance, taken_BTD, other_BTD)
        reached_BSK = model.decisions(model.classify(glance, taken_BTD))
        return reinforcement.rewards(kind, reached_BSK, collected["target"], baseline_BSK)

    def _covered(self, corners_BS2: Tensor, batch: Batch) -> Tensor:
        """The share of the object's box that each patch holds, (B, S): for one action a clip the mean over its frames,
        and 0 where no object is known. Raises UserError where no clip has boxes."""
        if batch.boxes_BT4 is None:
            raise UserError(
                "ppo.box_reward needs boxes of the objects, and no training clip has one: give the data set a "
                "boxes.csv, or set ppo.box_reward=0"
            )
        covers_BT = patch_covers(corners_BS2, self.config.model.patch_size, batch.boxes_BT4)
        return covers_BT.unflatten(1, (corners_BS2.shape[1], -1)).nanmean(-1).nan_to_num()

    def forward(self, collected: Collected) -> tuple[Tensor, Logs]:
        """The clipped surrogate loss with value and entropy terms."""
        output = self.model.policy(collected["states"])
        loss, logs = reinforcement.ppo_loss(
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
        return torch.optim.Adam(self.model.policy.parameters(), lr=self.settings.lr, fused=self.fused)


@contextlib.contextmanager
def forgetting(module: nn.Module) -> Iterator[None]:
    """While entered, batch norms in training leave their running statistics as they are."""
    norms = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
