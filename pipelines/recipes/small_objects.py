"""Recipes for footage in which a small region decides, on two CPU cores: a small glance, a patch at full resolution.

Both networks are EfficientNet-Lite0 with ImageNet weights; the classifier sees the focuser's features alone, for a few
hundred clips are soon known by heart by what the glance sees.
"""

from __future__ import annotations

from dataclasses import replace

from adafocus.config.schema import (
    Config,
    DataConfig,
    JointConfig,
    ModelConfig,
    OptimConfig,
    PPOConfig,
    PretrainConfig,
    UnifiedConfig,
)
from pipelines.recipes.cpu import adamw

LITE = "timm/tf_efficientnet_lite0"


def _frozen(data: DataConfig, patch_size: int, glance_size: int) -> Config:
    """AdaFocus on networks that keep their weights: only what stands on them learns.

    Few random patches show what decides, so that the classifier needs many passes before it reads it there; until then
    no reward points at it.
    """
    head = adamw(OptimConfig(batch_size=16, backbone_lr=0.0, head_lr=1e-3, label_smoothing=0.1, precision="bf16"))
    return Config(
        data=data,
        model=ModelConfig(
            glancer=LITE,
            focuser=LITE,
            glance_size=glance_size,
            patch_size=patch_size,
            policy_hidden=256,
            policy_norm=True,  # with neither it nor more entropy the policy is soon sure of one place, whatever it sees
            classifier_hidden=256,
            dropout=0.5,
            reuse_glance=False,
        ),
        pretrain=PretrainConfig(epochs=0, batch_size=16),  # which evaluates whole frames: 64 clips of them take 10 GB
        warmup=replace(head, epochs=60),
        ppo=PPOConfig(
            epochs=8, batch_size=16, lr=5e-4, update_epochs=2, gamma=0.0, entropy_coef=0.02, precision="bf16"
        ),
        finetune=replace(head, epochs=4),
    )


def _end_to_end(config: Config) -> Config:
    """AdaFocusV2 on the same frames: all networks learn."""
    return replace(
        config,
        method="adafocus-v2",
        model=replace(config.model, glance_stride=0, policy_channels=64, policy_norm=False, head_dropout=0.2),
        joint=adamw(
            JointConfig(
                epochs=6,
                batch_size=16,
                lr=1e-4,
                policy_lr_scale=5.0,
                classifier_lr_scale=10.0,
                warmup_epochs=0.5,
                label_smoothing=0.1,
            )
        ),
    )


def lips() -> Config:
    """Words read from lips, AdaFocus: a glance at 96 pixels, patches of 80 out of 224, 4 frames."""
    data = DataConfig(num_frames=4, num_focus_frames=4, resize=224, crop=224, crop_scales=(1.0, 0.875))
    config = _frozen(data, patch_size=80, glance_size=96)
    return replace(config, finetune=replace(config.finetune, epochs=40))  # the classifier reads little before


def lips_v2() -> Config:
    """Words read from lips, AdaFocusV2: as lips, both networks learn end to end."""
    return _end_to_end(lips())


def sky() -> Config:
    """Small flying objects, AdaFocus: a glance at 128 pixels, patches of 64 out of 256, 4 frames."""
    data = DataConfig(num_frames=4, num_focus_frames=4, resize=256, crop=256, crop_scales=(1.0, 0.875))
    config = _frozen(data, patch_size=64, glance_size=128)
    return replace(
        config,
        model=replace(config.model, glance_stride=16),  # a cell is as wide as an object; of the whole map twice
        # Backgrounds are soon known by heart, and how often a class comes in few places says little of others.
        warmup=replace(config.warmup, epochs=8, logit_adjustment=1.0),
        finetune=replace(config.finetune, logit_adjustment=1.0),
    )


def sky_v2() -> Config:
    """Small flying objects, AdaFocusV2: as sky, both networks learn end to end."""
    return _end_to_end(sky())


def sky_uni() -> Config:
    """Small flying objects, Uni-AdaFocus: glances at 4 of 12 frames, of which 4 are chosen to focus on."""
    config = sky_v2()
    rates = config.joint
    return replace(
        config,
        method="uni-adafocus",
        data=replace(config.data, num_candidates=12),
        model=replace(config.model, smallest_patch=config.model.patch_size, temporal_channels=64),
        unified=adamw(
            UnifiedConfig(
                epochs=rates.epochs,
                batch_size=rates.batch_size,
                lr=rates.lr,
                policy_lr_scale=rates.policy_lr_scale,
                classifier_lr_scale=rates.classifier_lr_scale,
                warmup_epochs=rates.warmup_epochs,
                label_smoothing=rates.label_smoothing,
                size_weight=0.01,  # the object is small, and so may the box be
            )
        ),
    )
