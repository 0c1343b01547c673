"""One ppo step of activitynet-128 on two clips: ours against one call per frame, as ratios in one run.

Options as in bench_inference.py; the plain one takes the frames of both clips at a time, as the reference does.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable

import torch
from ratios import CLASSES, CLIPS, options_of, race, report, settled_model, video
from torch import Tensor

from adafocus import reinforce
from adafocus.config import PPOConfig
from adafocus.infer import accelerate
from adafocus.models.adafocus import AdaFocus
from adafocus.models.patches import random_corners

TARGETS = {"float32": 1.8, "bf16": 3.0}
SETTINGS = PPOConfig()


def crop(frame_BCHW: Tensor, corners_B2: Tensor, side: int) -> Tensor:
    """Patch after patch."""
    pairs = zip(frame_BCHW, corners_B2.tolist(), strict=True)
    return torch.stack([image[:, r : r + side, c : c + side] for image, (r, c) in pairs])


def per_frame(model: AdaFocus, frames: Tensor, actions: Tensor, others: Tensor, labels: Tensor) -> Tensor:
    """The loss of the plain formulation: frame after frame, contiguous float32, a Python loop for the returns."""
    images = ((frames - model.mean) / model.std).contiguous()
    side, corners = model.config.model.patch_size, model.policy.corners(actions, frames.shape[-1])
    maps, rewards, behaviour, policy_state, state = [], [], [], None, None
    with torch.no_grad():
        for step in range(images.shape[1]):
            frame = images[:, step].contiguous()
            map_NDhw = model.glancer.features(frame)
            output, policy_state = model.policy.step(map_NDhw, policy_state)
            behaviour.append(output.actions.log_prob(actions[:, step : step + 1])[:, 0])
            pooled, confidence, after = model.glancer.pool(map_NDhw), [], state
            for where in (others, corners):
                patch = crop(frame, where[:, step], side)
                logits, after = model.classifier.step(torch.cat([pooled, model.focuser(patch)], 1), state)
                confidence.append(logits.softmax(1).gather(1, labels[:, None])[:, 0])
            state = after
            maps.append(map_NDhw)
            rewards.append(confidence[1] - confidence[0])
        returns: list[Tensor] = []
        for reward in reversed(rewards):
            returns.insert(0, reward + SETTINGS.gamma * (returns[0] if returns else 0))
        returns_BS = torch.stack(returns, 1)
        returns_BS = (returns_BS - returns_BS.mean()) / (returns_BS.std() + 1e-5)
    log_prob, value, entropy, policy_state = [], [], [], None
    for step, map_NDhw in enumerate(maps):
        output, policy_state = model.policy.step(map_NDhw, policy_state)
        log_prob.append(output.actions.log_prob(actions[:, step : step + 1])[:, 0])
        value.append(output.value_BS[:, 0])
        entropy.append(output.actions.entropy()[:, 0])
    parts = (torch.stack(part, 1) for part in (log_prob, behaviour, value))
    return _loss(*parts, returns_BS, torch.stack(entropy, 1))


def vectorised(eyes: AdaFocus, frames: Tensor, actions: Tensor, others: Tensor, labels: Tensor) -> Tensor:
    """Ours: the calls of the ppo stage."""
    with torch.no_grad():
        glance = eyes.glance(frames)
        corners = eyes.policy.corners(actions, frames.shape[-1])
        patches = torch.cat([eyes.crop(frames, corners), eyes.crop(frames, others)])
        taken, other = eyes.focus(patches).chunk(2)
        reached = eyes.decisions(eyes.classify(glance, taken))
        rewards = reinforce.rewards("random", reached, labels, eyes.counterfactual(glance, taken, other))
        returns = reinforce.normalise_returns(reinforce.discounted_returns(rewards, SETTINGS.gamma))
    output = eyes.policy(eyes.states(glance))
    log_prob = output.actions.log_prob(actions)
    return _loss(log_prob, log_prob.detach(), output.value_BS, returns, output.actions.entropy())


def _loss(log_prob: Tensor, behaviour: Tensor, value: Tensor, returns: Tensor, entropy: Tensor) -> Tensor:
    loss, _ = reinforce.ppo_loss(
        SETTINGS,
        log_prob_BS=log_prob,
        behaviour_BS=behaviour,
        value_BS=value,
        returns_BS=returns,
        entropy_BS=entropy,
    )
    return loss


def main() -> bool:
    """Returns whether losses agree and targets are reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    options = options_of(parser)
    model = settled_model("activitynet-128").requires_grad_(False)
    frames, generator = video(1, CLIPS, 16), torch.Generator().manual_seed(3)
    actions = torch.randint(49, (CLIPS, 16), generator=generator)
    others = random_corners((CLIPS, 16), 224, model.config.model.patch_size, generator=generator)
    inputs = (frames, actions, others, torch.randint(CLASSES, (CLIPS,), generator=generator))

    def stepper(network: AdaFocus, loss: Callable[..., Tensor], losses: list[float]) -> Callable[[], None]:
        network.policy = copy.deepcopy(model.policy).requires_grad_(True)
        optimizer = torch.optim.Adam(network.policy.parameters(), lr=SETTINGS.lr)

        def step() -> None:
            value = loss(network, *inputs)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(value.item())

        return step

    networks = {
        "per frame": (copy.copy(model), per_frame),
        "float32": (accelerate(model), vectorised),
        "bf16": (accelerate(model, precision="bf16"), vectorised),
    }
    networks["per frame"][0]._modules = dict(model._modules)
    losses: dict[str, list[float]] = {name: [] for name in networks}
    runs = {name: stepper(*pair, losses[name]) for name, pair in networks.items()}
    ok = report(f"ppo step, {CLIPS} clips, {torch.get_num_threads()} threads", race(runs, options), TARGETS)
    for name, values in losses.items():
        print(f"{name:28}losses {', '.join(f'{value:.4f}' for value in values[:4])}")
    return ok and abs(losses["per frame"][0] - losses["float32"][0]) < 1e-3


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
