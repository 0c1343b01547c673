"""What numbers a configuration may have: checked before anything is trained, for the last stage as for the first.

Values that only other values forbid (a patch larger than its frame) are checked here too, where both are settings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from adafocus.config.schema import STAGES, Config, flatten
from adafocus.models.adafocus import check_frames
from preprocessing.schema import UserError


@dataclass(frozen=True, slots=True)
class Bound:
    """An interval, with or without its ends."""

    low: float
    high: float = math.inf
    with_low: bool = True
    with_high: bool = True

    def holds(self, value: float) -> bool:
        """Is a finite `value` inside?"""
        above = value >= self.low if self.with_low else value > self.low
        below = value <= self.high if self.with_high else value < self.high
        return math.isfinite(value) and above and below

    def __str__(self) -> str:
        low = f"at least {self.low:g}" if self.with_low else f"above {self.low:g}"
        if math.isinf(self.high):
            return low
        return f"{low} and {'at most' if self.with_high else 'below'} {self.high:g}"


COUNT = Bound(1)
NOT_NEGATIVE = Bound(0)
POSITIVE = Bound(0, with_low=False)
SHARE = Bound(0, 1)
BELOW_ONE = Bound(0, 1, with_high=False)

SUPERVISED = {
    "epochs": NOT_NEGATIVE,
    "batch_size": COUNT,
    "backbone_lr": NOT_NEGATIVE,
    "head_lr": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "momentum": BELOW_ONE,
    "lr_batch_size": COUNT,
    "milestones": NOT_NEGATIVE,
    "warmup_epochs": NOT_NEGATIVE,
    "label_smoothing": BELOW_ONE,
    "clip_grad_norm": NOT_NEGATIVE,
    "accumulate": COUNT,
}
BOUNDS: dict[str, Bound] = {
    "data.num_frames": COUNT,
    "data.num_focus_frames": COUNT,
    "data.resize": COUNT,
    "data.crop": COUNT,
    "data.crop_scales": Bound(0, 1, with_low=False),
    "model.glance_size": COUNT,
    "model.patch_size": COUNT,
    "model.grid_size": Bound(2),
    "model.action_std": POSITIVE,
    "model.policy_channels": COUNT,
    "model.policy_hidden": COUNT,
    "model.classifier_hidden": COUNT,
    "model.dropout": BELOW_ONE,
    "model.finetune_dropout": BELOW_ONE,
    **{f"{stage}.{name}": bound for stage in STAGES if stage != "ppo" for name, bound in SUPERVISED.items()},
    "ppo.epochs": NOT_NEGATIVE,
    "ppo.batch_size": COUNT,
    "ppo.lr": POSITIVE,
    "ppo.gamma": SHARE,
    "ppo.update_epochs": COUNT,
    "ppo.clip": POSITIVE,
    "ppo.value_coef": NOT_NEGATIVE,
    "ppo.entropy_coef": NOT_NEGATIVE,
    "ppo.clip_grad_norm": NOT_NEGATIVE,
    "ppo.accumulate": COUNT,
    "seed": NOT_NEGATIVE,
}
"""Of every setting that is a number or several (each of them); None where a setting allows it is inside."""


TOGETHER = {
    *("model.family", "model.patch_size", "data.crop", "data.resize", "data.num_frames", "data.num_focus_frames"),
    *(f"{stage}.{name}" for stage in STAGES for name in ("batch_size", "accumulate", "epochs", "warmup_epochs")),
}
"""Settings that have to fit each other."""


def check(config: Config) -> Config:
    """The same configuration. Raises UserError, one line, for the first value outside its bound, and for settings that
    do not fit together."""
    flat = flatten(check_bounds(config))
    if config.data.crop > config.data.resize:
        raise UserError(f"data.crop is {config.data.crop}, but has to be at most data.resize = {config.data.resize}")
    check_frames(config)
    for stage in STAGES:
        size, parts = flat[f"{stage}.batch_size"], flat[f"{stage}.accumulate"]
        if size % parts:
            raise UserError(f"{stage}.batch_size is {size}, but has to be a multiple of {stage}.accumulate = {parts}")
        rise, epochs = flat.get(f"{stage}.warmup_epochs", 0), flat[f"{stage}.epochs"]
        if 0 < epochs <= rise:  # a schedule that falls to nothing would have no rate to rise to
            raise UserError(f"{stage}.warmup_epochs is {rise:g}, but has to be below {stage}.epochs = {epochs}")
    return config


def check_bounds(config: Config) -> Config:
    """The same for each value by itself."""
    flat = flatten(config)
    for key, bound in BOUNDS.items():
        for value in _numbers(flat[key]):
            if not bound.holds(value):
                raise UserError(f"{key} is {value:g}, but has to be {bound}")
    if not flat["data.crop_scales"]:
        raise UserError("data.crop_scales is empty, but has to have at least one number")
    return config


def _numbers(value: Any) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else () if value is None else (value,)
