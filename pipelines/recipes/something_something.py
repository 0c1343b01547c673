"""The published runs on Something-Something: clips of a few seconds, one action per clip."""

from __future__ import annotations

from typing import Any

from adafocus.config.schema import Config, DataConfig, ModelConfig, OptimConfig, PPOConfig, PretrainConfig


def shifted_networks(patch_size: int, **settings: Any) -> ModelConfig:
    """What the models of all versions have in common: temporal shift in both networks, one action per clip."""
    return ModelConfig(
        temporal_shift=True,
        head_dropout=0.5,
        action_per="clip",
        glancer="mobilenet_v2",
        focuser="resnet50",
        patch_size=patch_size,
        **settings,
    )


def _published(patch_size: int) -> Config:
    """Eight frames to glance, twelve to focus, temporal shift in both, one patch position per clip, averaged logits.

    The learning rates are the intended ones: the authors' program leaves most layers at 0, so that its first and last
    stage hardly train. Pretraining is the Temporal Shift Module's, whose rate falls tenfold after 20 and 40 epochs.
    Weight decay is that of the second version's program, the first one's is not known.
    """
    decay = 5e-4
    return Config(
        data=DataConfig(num_frames=8, num_focus_frames=12, focus_frames="own"),
        model=shifted_networks(
            patch_size,
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
    return _published(144)


def ssv1_160() -> Config:
    """Something-Something V1, patches of 160 pixels: 47.6 % at 27.5 GFLOPs."""
    return _published(160)


def ssv1_176() -> Config:
    """Something-Something V1, patches of 176 pixels: 48.1 % at 33.7 GFLOPs."""
    return _published(176)


def ssv2_144() -> Config:
    """Something-Something V2, patches of 144 pixels: 59.7 % at 23.5 GFLOPs. V1's values serve both versions."""
    return _published(144)


def ssv2_160() -> Config:
    """Something-Something V2, patches of 160 pixels: 60.2 % at 27.5 GFLOPs. V1's values serve both versions."""
    return _published(160)


def ssv2_176() -> Config:
    """Something-Something V2, patches of 176 pixels: 60.7 % at 33.7 GFLOPs. V1's values serve both versions."""
    return _published(176)
