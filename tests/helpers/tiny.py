"""Small settings, frames and batches that tests share."""

from __future__ import annotations

import numpy as np
import torch

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.data.batches import Batch
from adafocus.methods.adafocus import ADAFOCUS
from preprocessing.datasets.synthetic import SyntheticSpec

STAGES = ADAFOCUS.stage_names
SYNTHETIC = SyntheticSpec(num_train=24, num_val=10, num_frames=8, size=40, digit=12, fragments=2)
TINY = {
    "data.num_frames": 4,
    "data.num_focus_frames": 4,
    "data.resize": 40,
    "data.crop": 40,
    "data.crop_scales": (1.0, 0.875),
    "model.glance_size": 20,
    "model.patch_size": 16,
    "model.policy_channels": 4,
    "model.policy_hidden": 16,
    "model.classifier_hidden": 16,
    **{f"{stage}.epochs": 2 for stage in ("pretrain", "warmup", "ppo", "finetune")},
    **{f"{stage}.batch_size": 8 for stage in ("pretrain", "warmup", "ppo", "finetune")},
}
"""Changes of the demo's recipe that make a stage take a second."""


UNI: dict[str, object] = {
    "method": "uni-adafocus",
    "data.num_candidates": 12,
    "model.smallest_patch": 12,
    "model.temporal_channels": 4,
    "unified.epochs": 2,
    "unified.batch_size": 8,
}
"""Further changes that make it a Uni-AdaFocus."""
PER_CLIP = {
    "data.focus_frames": "own",
    "model.temporal_shift": True,
    "model.head_dropout": 0.2,
    "model.action_per": "clip",
    "model.action": "gaussian",
    "model.classifier": "average",
    "model.reuse_glance": True,
    "model.policy_norm": True,
    "data.num_focus_frames": 6,
}
"""Further changes that make it a model that sees the clip as a whole, as those of Something-Something."""


def numbered_frames(count: int, height: int = 48, width: int = 64, seed: int = 0) -> list[np.ndarray]:
    """Frames whose upper half has the brightness 10 * number and whose lower half is grey texture."""
    rng = np.random.default_rng(seed)
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[:, : height // 2] = (np.arange(count) * 10 % 250)[:, None, None, None]
    coarse = rng.integers(0, 255, (count, height // 8, width // 4, 1), np.uint8)
    frames[:, height // 2 :] = coarse.repeat(4, 1).repeat(4, 2)[:, : height - height // 2]
    return list(frames)


def shrink(config: Config) -> Config:
    """The tiny form of a recipe: small networks, few and small frames; all else as it is."""
    focus_frames = 4 if config.data.focus_frames == "shared" else 6
    chosen = {"data.num_candidates": 12, "model.smallest_patch": 48 * config.model.smallest_patch // config.data.crop}
    small = {
        **(chosen if config.data.num_candidates else {}),
        "data.num_frames": 4,
        "data.num_focus_frames": focus_frames,
        "data.resize": 56,
        "data.crop": 48,
        "model.glancer": "tiny_glance",
        "model.focuser": "tiny",
        "model.glancer_weights": "none",
        "model.focuser_weights": "none",
        "model.glance_size": 24,
        "model.glance_stride": config.model.glance_stride // 4,
        "model.patch_size": 48 * config.model.patch_size // config.data.crop,
        "model.policy_channels": 4,
        "model.policy_hidden": 16,
        "model.temporal_channels": 4,
        "model.classifier_hidden": 16,
    }
    return override(config, small)


def noise_batch(config: Config, clips: int, classes: int, seed: int) -> Batch:
    """Frames of smooth noise and labels, the same bits on every machine."""
    rng = np.random.RandomState(seed)

    def frames(count: int) -> torch.Tensor:
        cells = rng.randint(0, 256, (clips, count, 3, config.data.crop // 8, config.data.crop // 8))
        return torch.from_numpy(cells.repeat(8, 3).repeat(8, 4).astype(np.uint8))

    glance = frames(config.data.num_frames)
    focus = glance if config.data.shares_frames else frames(config.data.num_offered)
    labels = torch.from_numpy(rng.randint(0, classes, (clips, 1)))
    return Batch(glance, focus, labels, [f"clip {number}" for number in range(clips)])
