"""The shape of an experiment: frozen dataclasses, one per part, and the one function that changes them.

Values of published runs live in `pipelines/recipes.py`; facts of a data set (classes, flip, padding, metric) travel
with its shards; places (folders, URLs, addresses) belong to the command line and are never part of an identity. The one
exception is a file of initial weights, which enters an identity by its content (`stage_key`).
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from preprocessing.schema import UserError

Precision = Literal["float32", "bf16", "fp16"]
Reward = Literal["random", "previous", "confidence", "padding"]


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What is taken from a clip. Both networks see the same crop of the same clip."""

    num_frames: int = 16
    """Frames per clip that the glancer sees."""
    num_focus_frames: int = 16
    """Frames that the focuser sees: for the untrimmed family the same ones, so the same number."""
    resize: int = 256
    """Short side in pixels before the evaluation's centre crop."""
    crop: int = 224
    """Side in pixels of the square frame that the networks see."""
    crop_scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    """Sides of the training crop relative to the short side (group multi-scale crop)."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Networks and action space."""

    family: Literal["untrimmed", "trimmed"] = "untrimmed"
    """`untrimmed`: an action per frame, recurrent classifier. `trimmed`: temporal shift, one action per clip."""
    glancer: str = "mobilenet_v2"
    glancer_weights: str = "imagenet"
    """`imagenet` (through torchvision), `none` (random), or a file with a state dict."""
    glance_size: int = 224
    """Side in pixels at which the glancer sees a frame."""
    focuser: str = "resnet50"
    focuser_weights: str = "imagenet"
    patch_size: int = 128
    """Side in pixels of the patch, P."""
    action: Literal["grid", "gaussian"] = "grid"
    """Grid of patch corners (categorical), or a clipped Gaussian over corners in [0, 1]^2."""
    grid_size: int = 7
    """Corners per axis of the grid: k*k actions."""
    action_std: float = 0.25
    """Standard deviation of the Gaussian's actions, in units of the free range H - P."""
    policy_channels: int = 32
    """Channels that the policy's encoder keeps of the glancer's map."""
    policy_hidden: int = 1024
    policy_norm: bool = False
    """Batch norm in the policy's encoder (the trimmed family's default)."""
    classifier: Literal["gru", "linear", "average"] = "gru"
    classifier_hidden: int = 1024
    dropout: float = 0.8
    """Before the classifier's last layer."""
    finetune_dropout: float | None = None
    """The same in finetune, None for no difference."""
    reuse_glance: bool = True
    """Does the classifier see the glancer's features beside the focuser's?"""


@dataclass(frozen=True, slots=True)
class OptimConfig:
    """One supervised stage."""

    epochs: int = 15
    batch_size: int = 64
    """Global batch in clips, over all workers and accumulation steps."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    backbone_lr: float = 0.01
    """Learning rate of the pretrained networks that the stage trains."""
    head_lr: float = 0.01
    """Learning rate of the classifier (and, in pretrain, of the networks' own last layers)."""
    weight_decay: float = 1e-4
    momentum: float = 0.9
    lr_batch_size: int | None = None
    """Global batch that the two rates are meant for: for another one they are scaled linearly. None: never scaled."""
    schedule: Literal["cosine", "cosine_step", "step", "constant"] = "cosine"
    """`cosine` lowers the rate once an epoch, as the reference does; `cosine_step` at every step; `step` tenfold at
    each of `milestones`."""
    milestones: tuple[int, ...] = ()
    """Epochs, from 0, at whose start the schedule `step` lowers the rate."""
    warmup_epochs: float = 0.0
    """Epochs of linear increase at the start."""
    label_smoothing: float = 0.0
    clip_grad_norm: float = 0.0
    """0 leaves gradients as they are."""
    accumulate: int = 1
    """Micro-batches per optimizer step; batch norms in training take the statistics of each."""
    precision: Precision = "float32"

    def lr_scale(self) -> float:
        """What both rates are multiplied by: the linear scaling rule (Goyal et al. 2017, section 2.1)."""
        return self.batch_size / self.lr_batch_size if self.lr_batch_size else 1.0


@dataclass(frozen=True, slots=True)
class PretrainConfig(OptimConfig):
    """The networks as classifiers of whole frames."""

    loss: Literal["video", "frame"] = "video"
    """Cross-entropy of the mean over a clip's frames (the reference), or of every frame."""


@dataclass(frozen=True, slots=True)
class PPOConfig:
    """The policy's stage: Adam at a constant rate, all other networks frozen, as the reference's stage 2."""

    epochs: int = 50
    batch_size: int = 64
    lr: float = 3e-4
    gamma: float = 0.7
    """Discount of later frames' rewards."""
    reward: Reward = "random"
    """Confidence of the true class minus: that with a random patch; that of the previous step; nothing; that with a
    blank patch (zeros after normalisation)."""
    update_epochs: int = 1
    """Passes over one rollout. At 1 the ratio is 1 and clipping has no effect, as in the reference."""
    clip: float = 0.2
    value_coef: float = 0.5
    entropy_coef: float = 0.01
    clip_grad_norm: float = 0.0
    accumulate: int = 1
    precision: Precision = "float32"


@dataclass(frozen=True, slots=True)
class Config:
    """A whole experiment: what `stage_key` hashes and MLflow shows."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    warmup: OptimConfig = field(default_factory=OptimConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    finetune: OptimConfig = field(default_factory=OptimConfig)
    seed: int = 0


STAGES = ("pretrain", "warmup", "ppo", "finetune")

_GLANCE = ("model.family", "model.glancer", "model.focuser", "model.glance_size")
_CLASSIFY = ("model.patch_size", "model.classifier", "model.dropout", "model.reuse_glance")
_ACT = ("model.action", "model.grid_size", "model.policy", "ppo")
READS: dict[str, tuple[str, ...]] = {
    "pretrain": ("seed", "data", *_GLANCE, "model.dropout", "pretrain"),
    "warmup": (*_CLASSIFY, "warmup"),
    "ppo": (*_ACT, "model.action_std"),
    "finetune": ("model.finetune_dropout", "finetune"),
}
"""Prefixes of the fields that each stage reads and those before it do not."""


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted names and values of a (nested) dataclass, in the order of its fields."""
    flat: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        name = f"{prefix}{item.name}"
        flat.update(flatten(value, f"{name}.") if dataclasses.is_dataclass(value) else {name: value})
    return flat


def override(config: Config, changes: dict[str, Any]) -> Config:
    """A copy of `config` with dotted keys changed: `override(config, {"ppo.lr": 1e-4})`.

    Values may be strings, as a command line gives them. Raises UserError for an unknown key, naming the nearest known
    one, and for a value that does not fit the field's type.
    """
    for key, value in changes.items():
        config = _replace(config, key, key.split("."), value)
    return config


def _replace(node: Any, key: str, parts: list[str], value: Any) -> Any:
    names = [item.name for item in dataclasses.fields(node)]
    child = getattr(node, parts[0], None)
    if parts[0] not in names or (len(parts) > 1) != dataclasses.is_dataclass(child):
        near = difflib.get_close_matches(key, flatten(Config()), n=1, cutoff=0.0)[0]
        raise UserError(f"unknown setting {key!r}; the nearest known one is {near!r}")
    if len(parts) > 1:
        return dataclasses.replace(node, **{parts[0]: _replace(child, key, parts[1:], value)})
    wanted = typing.get_type_hints(type(node))[parts[0]]
    return dataclasses.replace(node, **{parts[0]: _convert(key, value, wanted)})


def _convert(key: str, value: Any, wanted: Any) -> Any:
    origin, args = typing.get_origin(wanted), typing.get_args(wanted)
    try:
        if origin is Literal:
            if value not in args:
                raise UserError(f"{key} is {value!r}, but has to be one of {', '.join(map(str, args))}")
            return value
        if origin is tuple:
            parts = value.split(",") if isinstance(value, str) else value
            return tuple(_convert(key, part, args[0]) for part in parts)
        if origin in (typing.Union, types.UnionType):
            inner = next(arg for arg in args if arg is not type(None))
            return None if value is None or value == "none" else _convert(key, value, inner)
        if wanted is bool:
            return {"true": True, "false": False, "1": True, "0": False}[str(value).lower()]
        if wanted is int and float(value) != int(float(value)):
            raise ValueError(value)
        return wanted(float(value)) if wanted is int else wanted(value)
    except (KeyError, ValueError, TypeError):
        raise UserError(f"{key} is {value!r}, but has to be a {getattr(wanted, '__name__', wanted)}") from None


def from_flat(flat: dict[str, Any]) -> Config:
    """The inverse of `flatten`, for a meta.json read back. Raises UserError for unknown keys."""
    return override(Config(), flat)


def stage_reads(stage: str) -> list[str]:
    """Dotted names of the fields that decide the result of `stage`: its own and those of the stages before it."""
    prefixes = [prefix for name in STAGES[: STAGES.index(stage) + 1] for prefix in READS[name]]
    return [
        name
        for name in flatten(Config())
        if any(name == prefix or name.startswith((f"{prefix}.", f"{prefix}_")) for prefix in prefixes)
    ]


def stage_key(config: Config, stage: str, digest: str) -> str:
    """Twelve hex digits that name the result of `stage`: equal for all trials that may share it.

    `digest` is the index's. A weights file counts by its content, not by where it lies.
    """
    flat = flatten(config)
    fields = {name: flat[name] for name in stage_reads(stage)}
    for name in ("model.glancer_weights", "model.focuser_weights"):
        if fields[name] not in ("imagenet", "none"):
            path = Path(fields[name])
            if not path.is_file():
                raise UserError(f"{name} is {fields[name]!r}: there is no such file")
            fields[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    text = json.dumps({"stage": stage, "digest": digest, **fields}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
