"""Learning, not only arithmetic: in a world of coloured squares the policy finds them.

The class is the colour of one square on grey noise. Frames are made in memory, so that this needs no video codec.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.data.batches import Batch
from adafocus.methods import build_model
from adafocus.methods.adafocus import ADAFOCUS
from adafocus.models.adafocus import AdaFocus, Patches
from adafocus.models.crop import patch_holds
from adafocus.training.loss_watch import LossWatch
from adafocus.training.seeding import seed_step
from adafocus.training.update import Updater
from pipelines.recipes.cpu import demo

pytestmark = pytest.mark.slow

SIDE, SQUARE, CLIPS, FRAMES = 48, 10, 32, 2
COLOURS = torch.tensor([[250, 20, 20], [20, 250, 20], [20, 20, 250], [250, 250, 20]], dtype=torch.uint8)
STEPS = {"pretrain": 100, "warmup": 150, "ppo": 200}


def world(seed: int) -> tuple[Batch, Tensor]:
    """Clips whose square stays where it is, and its box in every frame, (B, T, 4) in pixels."""
    random = torch.Generator().manual_seed(seed)
    frames_BTCHW = torch.randint(90, 160, (CLIPS, FRAMES, 1, SIDE, SIDE), generator=random, dtype=torch.uint8)
    frames_BTCHW = frames_BTCHW.repeat(1, 1, 3, 1, 1)
    labels_B = torch.randint(len(COLOURS), (CLIPS,), generator=random)
    corners_B2 = torch.randint(SIDE - SQUARE + 1, (CLIPS, 2), generator=random)
    for frames_TCHW, label, (top, left) in zip(frames_BTCHW, labels_B, corners_B2.tolist(), strict=True):
        frames_TCHW[:, :, top : top + SQUARE, left : left + SQUARE] = COLOURS[label].view(3, 1, 1)
    boxes_BT4 = torch.cat([corners_B2, corners_B2 + SQUARE], 1)[:, None].expand(-1, FRAMES, -1)
    names = [f"clip {number}" for number in range(CLIPS)]
    return Batch(frames_BTCHW, frames_BTCHW, labels_B[:, None], names), boxes_BT4


def train(name: str, model: AdaFocus, config: Config) -> list[float]:
    """Every step's reward, or loss."""
    stage = ADAFOCUS.stage(name)(model, config)
    off = torch.amp.GradScaler("cpu", enabled=False)
    updater = Updater(stage, stage.optimizer(), off, torch.device("cpu"), wrapped=stage)
    stage.train()
    watch, logged = LossWatch(), []
    for step in range(STEPS[name]):
        seed_step(config.seed, name, 0, step, stage.draws)
        logs = updater.step(iter([world(1000 * config.seed + step)[0]]), watch)
        logged.append(logs["reward" if name == "ppo" else "loss"])
    watch.check()
    return torch.stack(logged).tolist()


@torch.no_grad()
def judge(model: AdaFocus, look: Patches) -> tuple[float, float]:
    """Shares of frames whose patch holds the whole square, and of clips that are recognised, of 320 new clips."""
    torch.manual_seed(0)
    hits, right = [], []
    for seed in range(10**6, 10**6 + 10):
        batch, boxes_BT4 = world(seed)
        output = model.eval()(batch.glance_BTCHW, batch.focus_BTCHW, patches=look)
        hits.append(patch_holds(output.choice.corners_BS2, model.config.model.patch_size, boxes_BT4))
        right.append(output.prediction_BK.argmax(1) == batch.labels_BL[:, 0])
    return torch.cat(hits).float().mean().item(), torch.cat(right).float().mean().item()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_policy_learns_where_to_look(seed: int) -> None:
    """The reward rises from a random patch's, 0, and patches hold the square far more often than random ones."""
    config = override(
        demo(),
        {
            "data.num_frames": FRAMES,
            "data.num_focus_frames": FRAMES,
            "data.resize": SIDE,
            "data.crop": SIDE,
            "model.glance_size": 24,
            "model.patch_size": 20,
            "model.policy_hidden": 64,
            "model.classifier_hidden": 32,
            "seed": seed,
        },
    )
    torch.manual_seed(seed)
    model = build_model(config, len(COLOURS))
    for name in ("pretrain", "warmup"):
        train(name, model, config)
    rewards = train("ppo", model, config)
    first, last = (sum(part) / 20 for part in (rewards[:20], rewards[-20:]))
    (policy, accuracy), (random, guessed) = judge(model, "policy"), judge(model, "random")
    print(f"reward {first:.3f} -> {last:.3f}, hits {policy:.3f} against {random:.3f}")
    print(f"accuracy {accuracy:.3f} against {guessed:.3f}")
    assert last > first + 0.1
    assert policy > 2 * random
    assert accuracy > guessed + 0.1
