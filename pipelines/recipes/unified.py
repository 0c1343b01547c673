"""The published runs of Uni-AdaFocus: frames, boxes and early exit learnt together, in one stage."""

from __future__ import annotations

from dataclasses import replace

from adafocus.config.schema import Config, DataConfig, ModelConfig, UnifiedConfig
from pipelines.recipes.something_something import shifted_networks

METHOD = "uni-adafocus"


def _long_videos(patch_size: int) -> Config:
    """ActivityNet's: glances at 16 of 48 frames, of which 16 are chosen to focus on, a box for each. SGD, a cosine per
    epoch."""
    return Config(
        method=METHOD,
        data=DataConfig(num_frames=16, num_focus_frames=16, num_candidates=48),
        model=ModelConfig(
            glancer="mobilenet_v2",
            focuser="resnet50",
            head_dropout=0.2,
            patch_size=patch_size,
            policy_channels=128,
            temporal_channels=64,
            classifier_hidden=4096,
            dropout=0.2,
        ),
        unified=UnifiedConfig(epochs=50, batch_size=32, lr=0.002, weight_decay=2e-4, size_weight=1.0),
    )


def _something(patch_size: int, focus_frames: int, weight_decay: float) -> Config:
    """Something-Something's: eight glances, a third of the candidates to focus on, temporal shift in both
    networks, one box per clip."""
    return Config(
        method=METHOD,
        data=DataConfig(
            num_frames=8, num_focus_frames=focus_frames, num_candidates=3 * focus_frames, focus_frames="own"
        ),
        model=shifted_networks(
            patch_size,
            policy_channels=128,
            temporal_channels=64,
        ),
        unified=UnifiedConfig(
            epochs=50,
            batch_size=64,
            lr=0.02,
            weight_decay=weight_decay,
            size_weight=0.5,
            clip_grad_norm=20.0,
            precision="fp16",
        ),
    )


def activitynet_uni_96() -> Config:
    """ActivityNet, Uni-AdaFocus, patches of 96 pixels: 79.3 mAP (read off a plot) at 17.9 GFLOPs."""
    return _long_videos(96)


def activitynet_uni_128() -> Config:
    """ActivityNet, Uni-AdaFocus, patches of 128 pixels: 80.7 mAP at 27.2 GFLOPs."""
    return _long_videos(128)


def activitynet_uni_160() -> Config:
    """ActivityNet, Uni-AdaFocus, patches of 160 pixels: 81.5 mAP (read off a plot) at 39.2 GFLOPs."""
    return _long_videos(160)


def fcvid_uni_128() -> Config:
    """FCVID, Uni-AdaFocus, patches of 128 pixels: 86.4 mAP at 27.2 GFLOPs."""
    config = _long_videos(128)
    settings = replace(config.unified, batch_size=64, lr=0.004, weight_decay=1e-4, precision="fp16")
    return replace(config, unified=settings)


def minikinetics_uni_128() -> Config:
    """Mini-Kinetics, Uni-AdaFocus, patches of 128 pixels: 75.8 % at 27.2 GFLOPs."""
    config = _long_videos(128)
    settings = replace(config.unified, batch_size=48, lr=0.003, weight_decay=1e-4, size_weight=0.75, precision="fp16")
    return replace(config, model=replace(config.model, dropout=0.1), unified=settings)


def ssv1_uni_96_8() -> Config:
    """Something-Something V1, Uni-AdaFocus, 8 frames to focus on, patches of 96 pixels: 47.5 % at 8.8 GFLOPs."""
    return _something(96, 8, 1e-3)


def ssv1_uni_96_12() -> Config:
    """Something-Something V1, Uni-AdaFocus, 12 frames to focus on, patches of 96 pixels: 49.5 % at 11.8 GFLOPs."""
    return _something(96, 12, 1e-3)


def ssv1_uni_128_12() -> Config:
    """Something-Something V1, Uni-AdaFocus, 12 frames to focus on, patches of 128 pixels: 50.5 % at 18.8 GFLOPs."""
    return _something(128, 12, 1e-3)


def ssv1_uni_128_16() -> Config:
    """Something-Something V1, Uni-AdaFocus, 16 frames to focus on, patches of 128 pixels: 51.5 % at 24.2 GFLOPs."""
    return _something(128, 16, 1e-3)


def ssv2_uni_96_8() -> Config:
    """Something-Something V2, Uni-AdaFocus, 8 frames to focus on, patches of 96 pixels: 60.8 % at 8.8 GFLOPs."""
    return _something(96, 8, 5e-4)


def ssv2_uni_96_12() -> Config:
    """Something-Something V2, Uni-AdaFocus, 12 frames to focus on, patches of 96 pixels: 62.6 % at 11.8 GFLOPs."""
    return _something(96, 12, 5e-4)


def ssv2_uni_128_12() -> Config:
    """Something-Something V2, Uni-AdaFocus, 12 frames to focus on, patches of 128 pixels: 63.2 % at 18.8 GFLOPs."""
    return _something(128, 12, 5e-4)


def ssv2_uni_128_16() -> Config:
    """Something-Something V2, Uni-AdaFocus, 16 frames to focus on, patches of 128 pixels: 64.2 % at 24.2 GFLOPs."""
    return _something(128, 16, 5e-4)
