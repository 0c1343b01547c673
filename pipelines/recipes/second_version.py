"""The published runs of AdaFocusV2: one stage, in which all parts learn together."""

from __future__ import annotations

from dataclasses import replace

from adafocus.config.schema import Config, DataConfig, JointConfig, ModelConfig
from pipelines.recipes.something_something import shifted_networks


def _long_videos(patch_size: int) -> Config:
    """ActivityNet's: sixteen frames, a position for each, a last layer for every prefix. SGD, a cosine per epoch.

    The authors' program runs one more epoch, at rate 0. Their files are of frames in the order of time; their option of
    another order is `data.frame_order=spread`.
    """
    return Config(
        method="adafocus-v2",
        data=DataConfig(num_frames=16, num_focus_frames=16),
        model=ModelConfig(
            glancer="mobilenet_v2",
            focuser="resnet50",
            head_dropout=0.2,
            patch_size=patch_size,
            policy_channels=64,
            policy_hidden=2048,
            classifier_hidden=4096,
            dropout=0.2,
        ),
        joint=JointConfig(epochs=50, batch_size=32, lr=0.002, weight_decay=1e-4),
    )


def _resnet_glances(patch_size: int) -> Config:
    """The same with a second ResNet-50 that glances at 96 pixels; it was initialised from one trained at that size."""
    config = _long_videos(patch_size)
    model = replace(config.model, glancer="resnet50", glance_size=96, glance_resize="corners")
    return replace(config, model=model)


def _something(patch_size: int) -> Config:
    """Something-Something's: eight frames to glance, twelve to focus, temporal shift in both, one position per clip."""
    return Config(
        method="adafocus-v2",
        data=DataConfig(num_frames=8, num_focus_frames=12, focus_frames="own"),
        model=shifted_networks(
            patch_size,
            policy_channels=64,
            policy_hidden=1024,
        ),
        joint=JointConfig(
            epochs=50,
            batch_size=32,
            lr=0.01,
            policy_lr_scale=0.01,
            weight_decay=5e-4,
            clip_grad_norm=20.0,
        ),
    )


def activitynet_v2_96() -> Config:
    """ActivityNet, AdaFocusV2, patches of 96 pixels: 77.4 mAP at 17.6 GFLOPs."""
    return _long_videos(96)


def activitynet_v2_128() -> Config:
    """ActivityNet, AdaFocusV2, patches of 128 pixels: 79.0 mAP at 27.0 GFLOPs."""
    return _long_videos(128)


def activitynet_v2_160() -> Config:
    """ActivityNet, AdaFocusV2, patches of 160 pixels: 79.9 mAP at 39.0 GFLOPs."""
    return _long_videos(160)


def activitynet_v2_r50_96() -> Config:
    """ActivityNet, AdaFocusV2 with two ResNet-50, patches of 96 pixels: 77.5 mAP at 24.8 GFLOPs."""
    return _resnet_glances(96)


def activitynet_v2_r50_128() -> Config:
    """ActivityNet, AdaFocusV2 with two ResNet-50, patches of 128 pixels: 78.9 mAP at 34.1 GFLOPs."""
    return _resnet_glances(128)


def activitynet_v2_r50_160() -> Config:
    """ActivityNet, AdaFocusV2 with two ResNet-50, patches of 160 pixels: 80.2 mAP at 46.1 GFLOPs."""
    return _resnet_glances(160)


def fcvid_v2_128() -> Config:
    """FCVID, AdaFocusV2, patches of 128 pixels: 85.0 mAP at 27.0 GFLOPs."""
    return _long_videos(128)


def minikinetics_v2_128() -> Config:
    """Mini-Kinetics, AdaFocusV2, patches of 128 pixels: 75.4 % at 27.0 GFLOPs."""
    config = _long_videos(128)
    return replace(config, joint=replace(config.joint, batch_size=48, lr=0.003))


def ssv1_v2_128() -> Config:
    """Something-Something V1, AdaFocusV2, patches of 128 pixels: 47.0 % at 18.5 GFLOPs."""
    return _something(128)


def ssv1_v2_144() -> Config:
    """Something-Something V1, AdaFocusV2, patches of 144 pixels: 48.2 % at 23.5 GFLOPs."""
    return _something(144)


def ssv1_v2_160() -> Config:
    """Something-Something V1, AdaFocusV2, patches of 160 pixels: 48.6 % at 27.5 GFLOPs."""
    return _something(160)


def ssv1_v2_176() -> Config:
    """Something-Something V1, AdaFocusV2, patches of 176 pixels: 49.6 % at 33.7 GFLOPs."""
    return _something(176)


def ssv2_v2_128() -> Config:
    """Something-Something V2, AdaFocusV2, patches of 128 pixels: 59.6 % at 18.5 GFLOPs."""
    return _something(128)


def ssv2_v2_144() -> Config:
    """Something-Something V2, AdaFocusV2, patches of 144 pixels: 60.5 % at 23.5 GFLOPs."""
    return _something(144)


def ssv2_v2_160() -> Config:
    """Something-Something V2, AdaFocusV2, patches of 160 pixels: 60.8 % at 27.5 GFLOPs."""
    return _something(160)


def ssv2_v2_176() -> Config:
    """Something-Something V2, AdaFocusV2, patches of 176 pixels: 61.3 % at 33.7 GFLOPs."""
    return _something(176)
