"""AdaFocus+'s own stage, our design: a gate learns which frames deserve a look, the classifier to do without others.

A rollout draws a decision for every frame. What each look brings is asked one by one: by how much surer of its class
the clip is with it than without it, all other decisions as they were drawn. From that the price of a look is taken, and
PPO's objective makes decisions likelier that bring more than they cost. (Later decisions would change with an earlier
one; that they are held as drawn makes this no unbiased gradient, but one of little variance.) The price rises while
more frames are looked at than the budget allows and falls while fewer are. Glancer, policy and focuser are frozen.

Shapes: B clips, T frames, D features, K classes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from adafocus.config.schema import SkipConfig
from adafocus.data.loader import Batch
from adafocus.models.adafocus import Patches
from adafocus.models.adafocus_plus import AdaFocusPlus, policy_states
from adafocus.models.policies.gate import entropy, log_prob
from adafocus.stages import reinforcement
from adafocus.stages.stage import Collected, Logs, Stage, prefix_loss

HIGHEST = 20.0
"""Thresholds are between this and its negative."""
HALVINGS = 30
"""Of the interval in which a threshold is searched."""
NEEDED = ("gain", "score")
"""What is needed of all micro-batches at once."""

DAMPING = 2.0
"""What a look costs more while a share of the frames too many is looked at, per share."""


class Skip(Stage):
    """One rollout per batch, `skip.update_epochs` updates of gate and classifier on it."""

    name = "skip"
    trains = ("gate", "classifier")
    reads: ClassVar[tuple[str, ...]] = ("skip",)
    patches: ClassVar[Patches | None] = "policy"
    whole_batch = True  # gains are scaled, and the price is made, over it
    learns_in_half = False  # as in ppo

    @property
    def plus(self) -> AdaFocusPlus:
        """The model, as what it is."""
        assert isinstance(self.model, AdaFocusPlus)
        return self.model

    @property
    def settings(self) -> SkipConfig:
        return self.config.skip

    @property
    def updates_per_batch(self) -> int:
        return self.settings.update_epochs

    def collect(self, batch: Batch) -> Collected:
        """A rollout: states, decisions, what the focuser sees of all frames, and what each look brings."""
        collected, model = super().collect(batch), self.plus
        glance = self.fast.glance(collected["glance"])
        choice = self.fast.choose(glance)
        focus_BTD = self.fast.focus(self.fast.crop(collected["focus"], choice.corners_BS2))
        states_BTD = policy_states(choice)
        noise = torch.rand((self.rows(len(states_BTD)), states_BTD.shape[1]), generator=self.draws)
        noise_BT = self.own_rows(noise).to(states_BTD.device, non_blocking=True)
        looks_BT, _ = model.gate.decide(states_BTD, noise_BT=noise_BT)
        score_BT = model.gate(states_BTD, looks_BT)
        with evaluating(model.classifier):
            gain_BT = model.gains(glance, focus_BTD, looks_BT, collected["target"])
        return {
            "glance": glance,
            "focus": focus_BTD,
            "states": states_BTD,
            "looks": looks_BT,
            "score": score_BT,
            "gain": gain_BT,
            "target": collected["target"],
        }

    @torch.no_grad()
    def prepare(self, collected: list[Collected]) -> None:
        """The advantage of every decision in the global batch, all micro-batches of all workers; the price moves by its
        share of looks."""
        gain_BT, score_BT = (torch.cat([each[name] for each in collected]) for name in NEEDED)
        count, squares, drawn = reinforcement.sum_over_workers(
            gain_BT.new_full((), gain_BT.numel()), gain_BT.square().sum(), score_BT.sigmoid().sum()
        )
        price = self.follow(drawn / count)
        for rollout in collected:
            worth_BT = rollout["gain"] / ((squares / count).sqrt() + 1e-5) - price
            # Of either decision: what it brings beyond what is expected of the gate.
            rollout["advantage"] = (rollout["looks"].float() - rollout["score"].sigmoid()) * worth_BT

    def follow(self, drawn: Tensor) -> Tensor:
        """Move the price by the share of looks that are drawn; what a look costs this time. What the share is off now
        counts beside what it was off so far, which damps its swings."""
        gate, off = self.plus.gate, drawn - self.settings.budget
        price = gate.price + DAMPING * off
        gate.price.add_(self.settings.price_lr * off)
        return price

    @torch.no_grad()
    def settle(self, training_clips: Callable[[], Iterable[Batch]]) -> dict[str, float]:
        """Set the threshold to that which lets the budget's share of all these clips' frames pass.

        It is solved on all at once and with a gate that stands still: a small shift of the gate moves a threshold's
        share far, since scores of many frames lie close together.
        """
        model, device = self.plus, self.plus.gate.threshold.device
        widths = [torch.zeros(0, 1, self.plus.gate.state.out_features, device=device)]  # a worker may have no clip
        with evaluating(model):
            for batch in training_clips():
                states_BTD = policy_states(model.choose(model.glance(batch.to(device).glance_BTCHW)))
                widths.append(model.gate.state(states_BTD))
        self.set_threshold(torch.cat(widths[1:] or widths))
        return {"threshold": model.gate.threshold.item()}

    def set_threshold(self, width_NTD: Tensor) -> None:
        """Solve the threshold on all workers' clips by bisection, for a look changes the scores of the frames behind
        it. `width_NTD` is what the gate's first layer makes of the policy's states."""
        gate = self.plus.gate
        low = gate.threshold.new_full((), -HIGHEST)
        high = -low
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            looks_NT, _ = gate.decide_from(width_NTD, threshold=middle)
            passed, count = reinforcement.sum_over_workers(
                looks_NT.float().sum(), middle.new_full((), looks_NT.numel())
            )
            more = passed > self.settings.budget * count
            low, high = torch.where(more, middle, low), torch.where(more, high, middle)
        gate.threshold.copy_(high)

    def forward(self, collected: Collected) -> tuple[Tensor, Logs]:
        """PPO's loss of the gate, and the cross-entropy of every prediction with what was looked at."""
        settings, looks_BT, target_B = self.settings, collected["looks"], collected["target"]
        score_BT = self.plus.gate(collected["states"], looks_BT)
        log_ratio_BT = log_prob(score_BT, looks_BT) - log_prob(collected["score"], looks_BT)
        ratio_BT = log_ratio_BT.exp()
        policy_loss = reinforcement.surrogate(ratio_BT, collected["advantage"], settings.clip)
        spread = entropy(score_BT).mean()
        focus_BTD = torch.where(looks_BT.unsqueeze(-1), collected["focus"], self.plus.gate.blank)
        logits_BTK = self.plus.classify(collected["glance"], focus_BTD)
        class_loss = prefix_loss(self.plus.decisions(logits_BTK), target_B)
        with torch.no_grad():
            logs = {
                "policy_loss": policy_loss.detach(),
                "entropy": spread.detach(),
                "ratio": ratio_BT.mean(),
                "approx_kl": (ratio_BT - 1 - log_ratio_BT).mean(),
                "clip_fraction": ((ratio_BT - 1).abs() > settings.clip).float().mean(),
                "class_loss": class_loss.detach(),
                "accuracy": (logits_BTK[:, -1].argmax(1) == target_B).float().mean() * 100,
                "gain": collected["gain"].mean(),
                "looked": looks_BT.float().mean() * 100,
                "price": self.plus.gate.price.clone(),
            }
        return policy_loss - settings.entropy_coef * spread + class_loss, logs

    def lr_factor(self, group: int, done: float) -> float:
        """The gate's rate stays; the classifier's falls to nothing by a cosine, at every step."""
        return 1.0 if group == 0 else 0.5 * (1 + math.cos(math.pi * done))

    def optimizer(self) -> torch.optim.Optimizer:
        gate = self.plus.gate
        acting = [parameter for name, parameter in gate.named_parameters() if name != "blank"]
        classifying = [gate.blank, *self.plus.classifier.parameters()]
        rows = [{"params": acting, "lr": self.settings.lr}, {"params": classifying, "lr": self.settings.head_lr}]
        return torch.optim.Adam(rows, fused=self.fused)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """While entered, a module is in evaluation mode."""
    before = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(before)
