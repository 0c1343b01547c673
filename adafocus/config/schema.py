"""The shape of an experiment: frozen dataclasses, one per part, each number with the bounds that it has to keep.

Values of published runs live in `pipelines/recipes`; facts of a data set (classes, flip, padding, metric) travel with
its shards; places (folders, URLs, addresses) belong to the command line and are never part of an identity. The one
exception is a file of initial weights, which enters an identity by its content (`adafocus.methods.identity`).

A stage's hash leaves out values that equal the default here: a new setting with a default changes no name of a result,
and a default that has once been released stays.
"""

from __future__ import annotations

from dataclasses import field
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

Precision = Literal["float32", "bf16", "fp16"]
Reward = Literal["random", "previous", "confidence", "padding"]


def _split(value: Any) -> Any:
    """`1,0.5` of a command line -> its parts."""
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


def _none(value: Any) -> Any:
    return None if value == "none" else value


def _whole(value: Any) -> Any:
    """Whole numbers as people and samplers write them (`1e3`, 16.0); pydantic says what is wrong with anything else."""
    if isinstance(value, bool):
        return None  # which is no number
    if isinstance(value, float) and abs(value) >= _MOST_EXACT:
        raise ValueError("a number of that size may have been rounded")
    number = whole_number(value) if isinstance(value, str) else None
    return value if number is None else number


_MOST_EXACT = 2.0**53
_MOST_DIGITS = 100


def whole_number(text: str) -> int | None:
    """The whole number that a text such as `12`, `12.0` or `1e3` says, exactly; None for any other text."""
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return None
    is_whole = number.is_finite() and abs(number.adjusted()) < _MOST_DIGITS and number == number.to_integral_value()
    return int(number) if is_whole else None


def _number(value: Any) -> Any:
    return None if isinstance(value, bool) else value


_WHOLE, _NUMBER, _LIST = BeforeValidator(_whole), BeforeValidator(_number), BeforeValidator(_split)

Count = Annotated[int, Field(ge=1), _WHOLE]
Cardinal = Annotated[int, Field(ge=0), _WHOLE]
NotNegative = Annotated[float, Field(ge=0), _NUMBER]
Positive = Annotated[float, Field(gt=0), _NUMBER]
Share = Annotated[float, Field(ge=0, le=1), _NUMBER]
BelowOne = Annotated[float, Field(ge=0, lt=1), _NUMBER]
Scales = Annotated[tuple[Annotated[float, Field(gt=0, le=1), _NUMBER], ...], Field(min_length=1), _LIST]
Epochs = Annotated[tuple[Cardinal, ...], _LIST]

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True, config=STRICT)
class DataConfig:
    """What is taken from a clip. Both networks see the same crop of the same clip."""

    num_frames: Count = 16
    """Frames per clip that the glancer sees."""
    num_focus_frames: Count = 16
    """Frames that the focuser sees; as many as the glancer's where both see the same ones."""
    focus_frames: Literal["shared", "own"] = "shared"
    """Does the focuser see the glancer's frames, or frames of its own, sampled apart?"""
    num_candidates: Cardinal = 0
    """Frames of a clip among which the method chooses the focuser's (Uni-AdaFocus); those to glance at are among them
    where frames are shared. 0: nothing is chosen."""
    frame_order: Literal["time", "spread"] = "time"
    """Do frames come as in the clip, or so that any first few of them are spread over it: middle, ends, then halves?"""
    resize: Count = 256
    """Short side in pixels before the evaluation's centre crop."""
    crop: Count = 224
    """Side in pixels of the square frame that the networks see."""
    crop_scales: Scales = (1.0, 0.875, 0.75, 0.66)
    """Sides of the training crop relative to the short side (group multi-scale crop)."""
    reader: Literal["random", "stream"] = "random"
    """How training reads shards: single frames, in an order that is shuffled over all clips, or whole shards from front
    to back through webdataset, shuffled among some of them."""
    held_out: BelowOne = 0.0
    """Share of the training clips that training leaves out, so that early exit can be calibrated on them."""

    @property
    def shares_frames(self) -> bool:
        """Do both networks see the same frames, all of them?"""
        return self.focus_frames == "shared" and not self.num_candidates

    @property
    def num_offered(self) -> int:
        """Frames of a clip that the focuser sees, or may choose among."""
        return self.num_candidates or self.num_focus_frames


@dataclass(frozen=True, slots=True, config=STRICT)
class ModelConfig:
    """Networks and action space."""

    glancer: str = "mobilenet_v2"
    """Name of a backbone in `adafocus.models.backbones.BACKBONES`, or timm/NAME for one of timm's."""
    glancer_weights: str = "imagenet"
    """`imagenet` (through torchvision or timm), `none` (random), or a file with a state dict."""
    glance_size: Count = 224
    """Side in pixels at which the glancer sees a frame."""
    glance_resize: Literal["antialias", "corners"] = "antialias"
    """How frames are made smaller for it: with antialiasing, or bilinearly with corners on corners, as the reference's
    second version does for its ResNet-50."""
    glance_stride: Cardinal = 0
    """Pixels of the glance for each cell of the glancer's map: it ends at its last map of this stride, which is finer
    than the one at its end, for objects smaller than a cell of that. 0: the whole network."""
    focuser: str = "resnet50"
    """Likewise."""
    focuser_weights: str = "imagenet"
    """As the glancer's."""
    temporal_shift: bool = False
    """Do both networks shift an eighth of their features to the frames beside (TSM)?"""
    head_dropout: Annotated[BelowOne | None, BeforeValidator(_none)] = None
    """Before the networks' own last layers; None: as the networks have it."""
    action_per: Literal["frame", "clip"] = "frame"
    """Does the policy pick a patch for every frame, or one place for the whole clip?"""
    patch_size: Count = 128
    """Side in pixels of the patch, P."""
    smallest_patch: Count = 96
    """Least side in pixels of what a patch shows, where its size is chosen (Uni-AdaFocus); the largest is the frame."""
    action: Literal["grid", "gaussian"] = "grid"
    """Grid of patch corners (categorical), or a clipped Gaussian over corners in [0, 1]^2."""
    grid_size: Annotated[int, Field(ge=2), _WHOLE] = 7
    """Corners per axis of the grid: k*k actions."""
    action_std: Positive = 0.25
    """Standard deviation of the Gaussian's actions, in units of the free range H - P."""
    policy_channels: Count = 32
    """Channels that the policy's encoder keeps of the glancer's map."""
    policy_hidden: Count = 1024
    """Width of the policy's recurrent state."""
    temporal_channels: Count = 64
    """Channels of what chooses frames (Uni-AdaFocus)."""
    policy_norm: bool = False
    """Batch norm in the policy's encoder."""
    classifier: Literal["gru", "linear", "average"] = "gru"
    """Recurrent over frames, a linear layer per frame, or logits averaged over frames."""
    classifier_hidden: Count = 1024
    """Width of its recurrent state."""
    dropout: BelowOne = 0.8
    """Before the classifier's last layer."""
    finetune_dropout: Annotated[BelowOne | None, BeforeValidator(_none)] = None
    """The same in finetune, None for no difference."""
    reuse_glance: bool = True
    """Does the classifier see the glancer's features beside the focuser's?"""


@dataclass(frozen=True, slots=True, config=STRICT)
class TrainingConfig:
    """What supervised stages have in common."""

    epochs: Cardinal = 15
    """Passes over the training clips; 0 leaves the stage's parts as they are."""
    batch_size: Count = 64
    """Global batch in clips, over all workers and accumulation steps."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    weight_decay: NotNegative = 1e-4
    """Of the optimizer."""
    momentum: BelowOne = 0.9
    """Of SGD."""
    lr_batch_size: Annotated[Count | None, BeforeValidator(_none)] = None
    """Global batch that the rates are meant for: for another one they are scaled linearly. None: never scaled."""
    schedule: Literal["cosine", "cosine_step", "step", "constant"] = "cosine"
    """`cosine` lowers the rate once an epoch, as the reference does; `cosine_step` at every step; `step` tenfold at
    each of `milestones`."""
    milestones: Epochs = ()
    """Epochs, from 0, at whose start the schedule `step` lowers the rate."""
    warmup_epochs: NotNegative = 0.0
    """Epochs of linear increase at the start."""
    label_smoothing: BelowOne = 0.0
    """Share of the target that is spread over all classes."""
    logit_adjustment: NotNegative = 0.0
    """In the loss, this times the logarithm of each class's share of the training clips is added to its logit (Menon et
    al. 2021, equation 10): with 1 the model predicts as if all classes were equally frequent."""
    clip_grad_norm: NotNegative = 0.0
    """0 leaves gradients as they are."""
    accumulate: Count = 1
    """Micro-batches per optimizer step; batch norms in training take the statistics of each."""
    precision: Precision = "float32"
    """What the networks compute in; weights stay float32."""

    def lr_scale(self) -> float:
        """What rates are multiplied by: the linear scaling rule (Goyal et al. 2017, section 2.1)."""
        return self.batch_size / self.lr_batch_size if self.lr_batch_size else 1.0


@dataclass(frozen=True, slots=True, config=STRICT)
class OptimConfig(TrainingConfig):
    """One supervised stage of AdaFocus."""

    backbone_lr: NotNegative = 0.01
    """Learning rate of the pretrained networks that the stage trains."""
    head_lr: NotNegative = 0.01
    """Learning rate of the classifier (and, in pretrain, of the networks' own last layers)."""


@dataclass(frozen=True, slots=True, config=STRICT)
class JointConfig(TrainingConfig):
    """The one stage of AdaFocusV2: all parts at once, each at its own share of the learning rate."""

    lr: NotNegative = 0.002
    """Learning rate."""
    glancer_lr_scale: NotNegative = 0.5
    """What the glancer's rate is multiplied by, its own last layers with it."""
    focuser_lr_scale: NotNegative = 1.0
    """Likewise the focuser's."""
    policy_lr_scale: NotNegative = 0.1
    """Likewise the policy's."""
    classifier_lr_scale: NotNegative = 5.0
    """Likewise the classifier's."""


@dataclass(frozen=True, slots=True, config=STRICT)
class UnifiedConfig(JointConfig):
    """The one stage of Uni-AdaFocus, with the values for ActivityNet."""

    batch_size: Count = 32
    epochs: Cardinal = 50
    weight_decay: NotNegative = 2e-4
    policy_lr_scale: NotNegative = 0.2
    classifier_lr_scale: NotNegative = 20.0
    size_weight: NotNegative = 1.0
    """Weight of the regulariser that pulls patches' sizes up to the whole frame."""


@dataclass(frozen=True, slots=True, config=STRICT)
class PretrainConfig(OptimConfig):
    """The networks as classifiers of whole frames."""

    loss: Literal["video", "frame"] = "video"
    """Cross-entropy of the mean over a clip's frames (the reference), or of every frame."""


@dataclass(frozen=True, slots=True, config=STRICT)
class ReinforcementConfig:
    """What stages have in common that learn actions by reinforcement: Adam at a constant rate, PPO's loss."""

    epochs: Cardinal = 50
    """Passes over the training clips; 0 leaves what acts as it is."""
    batch_size: Count = 64
    """Global batch in clips, over all workers and accumulation steps."""
    lr: Positive = 3e-4
    """Learning rate of Adam."""
    update_epochs: Count = 1
    """Passes over one rollout. At 1 the ratio is 1 and clipping has no effect, as in the reference."""
    clip: Positive = 0.2
    """Bound of PPO's ratio: it is clipped to 1 - clip ... 1 + clip."""
    entropy_coef: NotNegative = 0.01
    """Weight of the entropy, which keeps the policy from settling early."""
    clip_grad_norm: NotNegative = 0.0
    """0 leaves gradients as they are."""
    accumulate: Count = 1
    """Micro-batches per optimizer step; returns are normalised over all of them."""
    precision: Precision = "float32"
    """What the frozen networks compute in; what acts learns in float32."""


@dataclass(frozen=True, slots=True, config=STRICT)
class PPOConfig(ReinforcementConfig):
    """The policy's stage: all other networks frozen, as the reference's stage 2."""

    gamma: Share = 0.7
    """Discount of later frames' rewards."""
    value_coef: NotNegative = 0.5
    """Weight of the value estimate's loss."""
    reward: Reward = "random"
    """Confidence of the true class minus: that with a random patch; that of the previous step; nothing; that with a
    blank patch (zeros after normalisation)."""
    box_reward: NotNegative = 0.0
    """Added to the reward: this times the share of the object's box that the patch holds. Needs boxes of the training
    clips' objects; our own, for footage where backgrounds earn as much as objects. With 0 the class alone teaches."""


@dataclass(frozen=True, slots=True, config=STRICT)
class SkipConfig(ReinforcementConfig):
    """AdaFocus+'s stage, our design: a gate learns which frames the focuser looks at, the classifier beside it."""

    budget: Annotated[float, Field(gt=0, le=1), _NUMBER] = 0.67
    """Share of the frames that are looked at, on average over clips."""
    price_lr: Positive = 0.05
    """How fast the price of a look follows the share of frames looked at."""
    head_lr: Positive = 1e-3
    """Learning rate of the classifier, and of what stands in for a skipped frame; a cosine lowers it at every step."""


@dataclass(frozen=True, slots=True, config=STRICT)
class Config:
    """A whole experiment: what a stage's hash is made of and what MLflow shows."""

    method: str = "adafocus"
    """Name of a method in `adafocus.methods.METHODS`."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    warmup: OptimConfig = field(default_factory=OptimConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    finetune: OptimConfig = field(default_factory=OptimConfig)
    skip: SkipConfig = field(default_factory=SkipConfig)
    joint: JointConfig = field(default_factory=JointConfig)
    unified: UnifiedConfig = field(default_factory=UnifiedConfig)
    seed: Cardinal = 0
    """Of initial weights, order of clips, crops, and random patches."""
