"""Recipes for a CPU: the demo, and a user's own clips."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from adafocus.config.schema import (
    Config,
    DataConfig,
    JointConfig,
    ModelConfig,
    OptimConfig,
    PPOConfig,
    PretrainConfig,
    SkipConfig,
    TrainingConfig,
    UnifiedConfig,
)

Supervised = TypeVar("Supervised", bound=TrainingConfig)


def adamw(settings: Supervised) -> Supervised:
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
        pretrain=adamw(PretrainConfig(epochs=4, batch_size=32, backbone_lr=3e-3, head_lr=3e-3, loss="frame")),
        warmup=adamw(OptimConfig(epochs=6, batch_size=32, backbone_lr=2e-3, head_lr=2e-3)),
        ppo=PPOConfig(epochs=10, batch_size=32, lr=1e-3),
        finetune=adamw(OptimConfig(epochs=3, batch_size=32, backbone_lr=0.0, head_lr=1e-3)),
    )


def demo_plus() -> Config:
    """The synthetic data set with AdaFocus+: the demo, which learns to look at two frames in three (skip.budget)."""
    return replace(demo(), method="adafocus-plus", skip=SkipConfig(epochs=6, batch_size=32, lr=1e-3, update_epochs=4))


def demo_v2() -> Config:
    """The synthetic data set with AdaFocusV2: the demo's networks, learnt in one stage."""
    config = demo()
    return replace(
        config,
        method="adafocus-v2",
        model=replace(config.model, policy_channels=64, policy_hidden=128, classifier_hidden=128),
        joint=adamw(JointConfig(epochs=6, batch_size=16, lr=2e-3, glancer_lr_scale=1.0, classifier_lr_scale=1.0)),
    )


def demo_uni() -> Config:
    """The synthetic data set with Uni-AdaFocus: glances at 3 of 18 frames, of which 6 are chosen to focus on.

    Its policies learn from the glancer alone. So there are fewer glances than looks, and finer ones; they cost less
    than the demo's six. No box is smaller than its patch, for enlarged pixels show no more; and little pulls boxes up
    to the whole frame, where the digit is small.
    """
    config = demo()
    data = replace(config.data, num_frames=3, num_candidates=18)
    model = replace(
        config.model,
        glance_size=24,
        smallest_patch=config.model.patch_size,
        policy_channels=16,
        temporal_channels=32,
        reuse_glance=True,
    )
    settings = UnifiedConfig(
        epochs=12,
        batch_size=16,
        lr=2e-3,
        glancer_lr_scale=1.0,
        classifier_lr_scale=1.0,
        size_weight=0.01,
    )
    return replace(config, method="uni-adafocus", data=data, model=model, unified=adamw(settings))


def folder() -> Config:
    """Your own clips on a CPU: MobileNetV2 glances at whole frames and looks at patches of 160 out of 224 pixels.

    For a hundred clips and more: both networks keep their initial weights (model.glancer_weights,
    model.focuser_weights) and only what stands on them learns; with more clips set `warmup.backbone_lr` above 0.
    """
    probe = adamw(OptimConfig(batch_size=10, backbone_lr=0.0, head_lr=1e-3, label_smoothing=0.1))
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
        pretrain=adamw(PretrainConfig(epochs=8, batch_size=10, backbone_lr=0.0, head_lr=3e-3, label_smoothing=0.1)),
        warmup=replace(probe, epochs=12),
        ppo=PPOConfig(epochs=8, batch_size=10, lr=3e-4, update_epochs=2),
        finetune=replace(probe, epochs=5, head_lr=1e-3),
    )
