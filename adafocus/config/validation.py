"""Settings that have to fit each other, checked before anything is trained, for the last stage as for the first.

What one setting may be by itself stands beside it in `schema.py`.
"""

from __future__ import annotations

from adafocus.config.schema import Config, DataConfig, ReinforcementConfig, TrainingConfig
from preprocessing.schema import UserError

STAGE_SETTINGS = ("pretrain", "warmup", "ppo", "finetune", "skip", "joint", "unified")
"""Parts of the configuration that are settings of a training stage."""

TOGETHER = {
    *("model.patch_size", "model.smallest_patch", "model.action_per"),
    *("data.crop", "data.resize", "data.num_frames", "data.num_focus_frames", "data.focus_frames", "data.frame_order"),
    "data.num_candidates",
    "model.temporal_shift",
    *(
        f"{stage}.{name}"
        for stage in STAGE_SETTINGS
        for name in ("batch_size", "accumulate", "epochs", "warmup_epochs")
    ),
}
"""Names of the settings that have to fit each other."""


def check(config: Config) -> Config:
    """The same configuration. Raises UserError, one line, for settings that do not fit together."""
    check_model(config)
    for stage in STAGE_SETTINGS:
        check_stage(stage, getattr(config, stage))
    return config


def check_model(config: Config) -> Config:
    """As `check`, of what a model is made of: all that has to hold for a finished one."""
    data, model = check_data(config.data), config.model
    if model.patch_size > data.crop:
        raise UserError(
            f"model.patch_size is {model.patch_size}, but frames have data.crop = {data.crop} pixels a side"
        )
    if data.num_candidates and model.smallest_patch > model.patch_size:
        raise UserError(
            f"model.smallest_patch is {model.smallest_patch}, but has to be at most model.patch_size = "
            f"{model.patch_size}"
        )
    if model.temporal_shift and data.frame_order != "time":
        raise UserError(
            f"data.frame_order is {data.frame_order}, but model.temporal_shift moves features between neighbours in "
            "time: set data.frame_order=time"
        )
    if data.focus_frames == "own" and model.action_per == "frame":
        raise UserError(
            "model.action_per is frame, but the focuser's frames are not the glancer's (data.focus_frames=own): set "
            "model.action_per=clip or data.focus_frames=shared"
        )
    return config


def check_data(data: DataConfig) -> DataConfig:
    """As `check`, of what is taken from a clip."""
    if data.crop > data.resize:
        raise UserError(f"data.crop is {data.crop}, but has to be at most data.resize = {data.resize}")
    if data.focus_frames == "own" and data.frame_order != "time":
        raise UserError(
            f"data.frame_order is {data.frame_order}, but each network sees frames of its own (data.focus_frames=own): "
            "set data.frame_order=time"
        )
    if data.num_candidates:
        return check_candidates(data)
    if data.focus_frames == "shared" and data.num_frames != data.num_focus_frames:
        raise UserError(
            f"data.num_focus_frames is {data.num_focus_frames}, but both networks see the same data.num_frames = "
            f"{data.num_frames} frames: make them equal, or set data.focus_frames=own"
        )
    return data


def check_candidates(data: DataConfig) -> DataConfig:
    """As `check`, where frames are chosen."""
    if data.num_candidates < data.num_focus_frames:
        raise UserError(
            f"data.num_candidates is {data.num_candidates}, but data.num_focus_frames = {data.num_focus_frames} of them"
            " have to be chosen: raise the one or lower the other"
        )
    if data.focus_frames == "shared" and data.num_candidates % data.num_frames:
        raise UserError(
            f"data.num_candidates is {data.num_candidates}, but has to be a multiple of data.num_frames = "
            f"{data.num_frames}, for one frame of every so many is glanced at"
        )
    if data.frame_order != "time":
        raise UserError(
            f"data.frame_order is {data.frame_order}, but frames are chosen along time: set data.frame_order=time"
        )
    return data


def check_stage(name: str, settings: TrainingConfig | ReinforcementConfig) -> None:
    """As `check`, of one stage's settings."""
    size, parts = settings.batch_size, settings.accumulate
    if size % parts:
        raise UserError(f"{name}.batch_size is {size}, but has to be a multiple of {name}.accumulate = {parts}")
    rise = getattr(settings, "warmup_epochs", 0)
    if 0 < settings.epochs <= rise:  # a schedule that falls to nothing would have no rate to rise to
        raise UserError(f"{name}.warmup_epochs is {rise:g}, but has to be below {name}.epochs = {settings.epochs}")
