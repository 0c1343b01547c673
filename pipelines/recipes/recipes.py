"""The values of published runs: one function a recipe, each returning a whole configuration.

Number of classes, metric, flipping and padding are facts of a data set and travel with its shards. Values are those of
the authors' commands; where they published none, the docstring says what stands in.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from adafocus.config.overrides import override
from adafocus.config.schema import Config, DataConfig, ModelConfig, OptimConfig, PPOConfig, PretrainConfig
from adafocus.methods import method_of
from preprocessing.schema import UserError

log = logging.getLogger(__name__)

Recipe = Callable[[], Config]
Supervised = TypeVar("Supervised", bound=OptimConfig)


def _untrimmed(patch_size: int) -> Config:
    """Sixteen frames, MobileNetV2 glances, ResNet-50 looks closely, a GRU sums up. SGD with a cosine per epoch.

    Sixteen-bit precision is the default of the authors' program, and nothing known exempts its policy stage from it.
    Here ppo computes in float32 all the same: its rewards are small differences of probabilities, and the ratio of the
    first pass over a rollout is then 1 to the last bit. `ppo.precision=bf16` is faster on hardware that has it.
    """
    return Config(
        data=DataConfig(num_frames=16, num_focus_frames=16),
        model=ModelConfig(
            glancer="mobilenet_v2",
            focuser="resnet50",
            patch_size=patch_size,
            action="grid",
            grid_size=7,
            policy_channels=32,
            policy_hidden=1024,
            policy_norm=False,
            classifier="gru",
            classifier_hidden=1024,
            dropout=0.8,
        ),
        pretrain=PretrainConfig(epochs=15, batch_size=64, backbone_lr=0.01, head_lr=0.01, precision="fp16"),
        warmup=OptimConfig(epochs=50, batch_size=64, backbone_lr=5e-4, head_lr=0.05, precision="fp16"),
        ppo=PPOConfig(epochs=50, batch_size=64, lr=3e-4, gamma=0.7, reward="random"),
        finetune=OptimConfig(epochs=10, batch_size=64, backbone_lr=0.0, head_lr=0.005, precision="fp16"),
    )


def activitynet_96() -> Config:
    """ActivityNet, patches of 96 pixels: 71.9 mAP at 17.2 GFLOPs. No checkpoint was released at this size."""
    return _untrimmed(96)


def activitynet_128() -> Config:
    """ActivityNet, patches of 128 pixels: 75.0 mAP at 26.5 GFLOPs."""
    return _untrimmed(128)


def activitynet_160() -> Config:
    """ActivityNet, patches of 160 pixels: 76.0 mAP at 38.5 GFLOPs."""
    return _untrimmed(160)


def activitynet_192() -> Config:
    """ActivityNet, patches of 192 pixels: 76.7 mAP (read off a plot) at 53.2 GFLOPs."""
    return _untrimmed(192)


def fcvid_128() -> Config:
    """FCVID, patches of 128 pixels. No command was published: ActivityNet's values, which the same program serves."""
    return _untrimmed(128)


def minikinetics_128() -> Config:
    """Mini-Kinetics, patches of 128 pixels. No command was published: ActivityNet's values."""
    return _untrimmed(128)


def _trimmed(patch_size: int) -> Config:
    """Eight frames to glance, twelve to focus, temporal shift in both, one patch position per clip, averaged logits.

    The learning rates are the intended ones: the authors' program leaves most layers at 0, so that its first and last
    stage hardly train. Pretraining is the Temporal Shift Module's, whose rate falls tenfold after 20 and 40 epochs.
    Weight decay is that of the second version's program, the first one's is not known.
    """
    decay = 5e-4
    return Config(
        data=DataConfig(num_frames=8, num_focus_frames=12, focus_frames="own"),
        model=ModelConfig(
            temporal_shift=True,
            head_dropout=0.5,
            action_per="clip",
            glancer="mobilenet_v2",
            focuser="resnet50",
            patch_size=patch_size,
            action="gaussian",
            action_std=0.25,
            policy_channels=64,
            policy_hidden=1024,
            policy_norm=True,
            classifier="average",
            dropout=0.5,
            finetune_dropout=0.0,
        ),
        pretrain=PretrainConfig(
            epochs=50,
            batch_size=64,
            backbone_lr=0.01,
            head_lr=0.01,
            weight_decay=decay,
            schedule="step",
            milestones=(20, 40),
            clip_grad_norm=20.0,
        ),
        warmup=OptimConfig(
            epochs=10, batch_size=64, backbone_lr=1e-5, head_lr=0.01, weight_decay=decay, precision="fp16"
        ),
        ppo=PPOConfig(epochs=50, batch_size=64, lr=3e-4, gamma=0.7, reward="random"),
        finetune=OptimConfig(epochs=10, batch_size=32, backbone_lr=0.0, head_lr=5e-4, weight_decay=decay),
    )


def ssv1_144() -> Config:
    """Something-Something V1, patches of 144 pixels: 47.0 % at 23.5 GFLOPs."""
    return _trimmed(144)


def ssv1_160() -> Config:
    """Something-Something V1, patches of 160 pixels: 47.6 % at 27.5 GFLOPs."""
    return _trimmed(160)


def ssv1_176() -> Config:
    """Something-Something V1, patches of 176 pixels: 48.1 % at 33.7 GFLOPs."""
    return _trimmed(176)


def ssv2_144() -> Config:
    """Something-Something V2, patches of 144 pixels: 59.7 % at 23.5 GFLOPs. V1's values serve both versions."""
    return _trimmed(144)


def ssv2_160() -> Config:
    """Something-Something V2, patches of 160 pixels: 60.2 % at 27.5 GFLOPs. V1's values serve both versions."""
    return _trimmed(160)


def ssv2_176() -> Config:
    """Something-Something V2, patches of 176 pixels: 60.7 % at 33.7 GFLOPs. V1's values serve both versions."""
    return _trimmed(176)


def _adamw(settings: Supervised) -> Supervised:
    """What few steps need: AdamW, its rate lowered at every step."""
    return replace(settings, optimizer="adamw", weight_decay=0.01, schedule="cosine_step")


def demo() -> Config:
    """The synthetic data set on two CPU cores: tiny networks from scratch, a glance at 18 pixels.

    The classifier sees the focuser's features alone: with so few clips the glancer's memorise backgrounds.
    """
    return Config(
        data=DataConfig(num_frames=6, num_focus_frames=6, resize=112, crop=112, crop_scales=(1.0,)),
        model=ModelConfig(
            glancer="tiny_glance",
            glancer_weights="none",
            glance_size=18,
            focuser="tiny",
            focuser_weights="none",
            patch_size=44,
            grid_size=5,
            policy_hidden=128,
            classifier_hidden=128,
            dropout=0.2,
            reuse_glance=False,
        ),
        pretrain=_adamw(PretrainConfig(epochs=4, batch_size=32, backbone_lr=3e-3, head_lr=3e-3, loss="frame")),
        warmup=_adamw(OptimConfig(epochs=6, batch_size=32, backbone_lr=2e-3, head_lr=2e-3)),
        ppo=PPOConfig(epochs=10, batch_size=32, lr=1e-3),
        finetune=_adamw(OptimConfig(epochs=3, batch_size=32, backbone_lr=0.0, head_lr=1e-3)),
    )


def folder() -> Config:
    """Your own clips on a CPU: MobileNetV2 glances at whole frames and looks at patches of 160 out of 224 pixels.

    For a hundred clips and more: both networks keep their initial weights (model.glancer_weights,
    model.focuser_weights) and only what stands on them learns; with more clips set `warmup.backbone_lr` above 0.
    """
    probe = _adamw(OptimConfig(batch_size=10, backbone_lr=0.0, head_lr=1e-3, label_smoothing=0.1))
    return Config(
        data=DataConfig(num_frames=8, num_focus_frames=8),
        model=ModelConfig(
            glancer="mobilenet_v2",
            focuser="mobilenet_v2",
            patch_size=160,
            grid_size=5,
            policy_hidden=256,
            classifier="linear",
            dropout=0.5,
        ),
        pretrain=_adamw(PretrainConfig(epochs=8, batch_size=10, backbone_lr=0.0, head_lr=3e-3, label_smoothing=0.1)),
        warmup=replace(probe, epochs=12),
        ppo=PPOConfig(epochs=8, batch_size=10, lr=3e-4, update_epochs=2),
        finetune=replace(probe, epochs=5, head_lr=1e-3),
    )


RECIPES: dict[str, Recipe] = {
    "activitynet-96": activitynet_96,
    "activitynet-128": activitynet_128,
    "activitynet-160": activitynet_160,
    "activitynet-192": activitynet_192,
    "fcvid-128": fcvid_128,
    "minikinetics-128": minikinetics_128,
    "ssv1-144": ssv1_144,
    "ssv1-160": ssv1_160,
    "ssv1-176": ssv1_176,
    "ssv2-144": ssv2_144,
    "ssv2-160": ssv2_160,
    "ssv2-176": ssv2_176,
    "demo": demo,
    "folder": folder,
}


def about(name: str) -> str:
    """A recipe in one line."""
    return (RECIPES[name].__doc__ or "").splitlines()[0]


def scale_rates(config: Config, recipe: Config) -> Config:
    """`config` with the rates of its SGD stages meant for the recipe's batch sizes: they follow the batch linearly.

    The rule is SGD's; rates of Adam and AdamW stay, and the log says so. What becomes of the others is logged when
    their stage starts.
    """
    changes = {}
    for stage in method_of(config).stage_names:
        settings, size = getattr(config, stage), getattr(recipe, stage).batch_size
        if isinstance(settings, OptimConfig) and settings.optimizer == "sgd":
            changes[f"{stage}.lr_batch_size"] = size
        else:
            log.info("%s: rates are Adam's and stay as they are at any batch", stage)
    return override(config, changes)


def find_recipe(name: str) -> Config:
    """The configuration of a recipe. Raises UserError for an unknown one, naming the nearest."""
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.0)[0]
        raise UserError(f"unknown recipe {name!r}; the nearest known one is {near!r} (`adafocus recipes` lists all)")
    return RECIPES[name]()
