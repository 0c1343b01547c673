"""What the stages have in common: which parts learn, at which rate, and the shape of one step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adafocus import distributed
from adafocus.acceleration.accelerate import accelerate
from adafocus.config.schema import Config, OptimConfig, ReinforcementConfig, TrainingConfig
from adafocus.data.loader import Batch
from adafocus.models.adafocus import AdaFocus, Patches
from adafocus.models.crop import random_corners

NETWORKS = ("glancer", "focuser")
Collected = dict[str, Any]
"""What a batch's updates read: tensors, and the glancer's outputs."""
Logs = dict[str, Tensor]
"""What an update says of itself: scalars, left on the device."""


class Stage(nn.Module):
    """One stage's arithmetic. `collect` is done once a batch, without gradients; `forward` makes the loss of an update.

    A subclass is what DistributedDataParallel wraps, so everything that needs a gradient happens in `forward`.
    """

    name: ClassVar[str]
    trains: ClassVar[tuple[str, ...]]
    """Parts of the model that learn and are in training mode; the others are frozen and in evaluation mode. A
    backbone_lr of 0 freezes the networks too, as in the reference's last stage; in pretrain their own last layers still
    learn (a linear probe)."""
    reads: ClassVar[tuple[str, ...]]
    """Settings that decide the stage's result and none before it: names, or beginnings of names that end at a dot or an
    underscore."""
    patches: ClassVar[Patches | None]
    """Where the stage looks; None: at whole frames."""
    whole_batch: ClassVar[bool] = False
    """Do updates read what was collected of all micro-batches? Else one micro-batch is done with before the next."""
    heads_learn: ClassVar[bool] = False
    """Do the networks' own last layers learn beside a classifier, or does it stand in for them?"""
    learns_in_half: ClassVar[bool] = True
    """Is what learns in the stage's precision too, or only the frozen networks?"""

    def __init__(self, model: AdaFocus, config: Config) -> None:
        super().__init__()
        self.model = model
        self.config = config
        learning, fixed = self.learning_parts(), self.fixed_bodies()
        for part, module in model.named_children():
            module.requires_grad_(part in learning)
        for part in fixed:
            model.get_submodule(f"{part}.body").requires_grad_(False)
        if "classifier" in learning and not self.heads_learn:
            model.focuser.last.requires_grad_(False)
        fast = accelerate(model, parts=fixed, precision=self.settings.precision) if fixed else model
        self._fast = (fast,)  # in a tuple, so that it does not become a submodule
        self.draws = torch.Generator()
        """Of random patches, actions and labels: in the same state on all workers, and before every micro-batch. Each
        draws for the global batch and keeps its own clips' rows, so that what is drawn depends neither on the number of
        workers nor on that of micro-batches."""
        self.micro_batch = 0
        """The number of the one that is collected."""
        self.global_clips = 0
        """Clips of a global batch; 0: its micro-batches are all as large as the one that is collected."""
        device = next(model.parameters()).device
        self.class_shares_K = torch.full((model.num_classes,), 1 / model.num_classes, device=device)
        """Of the training clips, the share of each class, where the loss is adjusted by it; equal until they are known,
        which adjusts nothing."""

    @property
    def fast(self) -> AdaFocus:
        """The model with its frozen networks folded and in this stage's precision; it shares all parts that learn."""
        return self._fast[0]

    @property
    def settings(self) -> TrainingConfig | ReinforcementConfig:
        """This stage's part of the configuration."""
        settings: TrainingConfig | ReinforcementConfig = getattr(self.config, self.name)
        return settings

    @property
    def updates_per_batch(self) -> int:
        """Passes over what `collect` returned."""
        return 1

    def learning_parts(self) -> tuple[str, ...]:
        """Names of the model's parts that this stage trains."""
        parts = self.trains
        if "classifier" in parts and getattr(self.settings, "backbone_lr", 1.0) == 0:
            parts = tuple(part for part in parts if part not in NETWORKS)
        return parts

    def fixed_bodies(self) -> tuple[str, ...]:
        """Networks of which this stage trains at most their own last layers."""
        learning = self.learning_parts() if getattr(self.settings, "backbone_lr", 1.0) else ()
        return tuple(part for part in NETWORKS if part not in learning)

    def train(self, mode: bool = True) -> Stage:
        """Training mode for the parts that learn, evaluation mode for the frozen ones."""
        super().train(mode)
        learning = self.learning_parts()
        for part, module in self.model.named_children():
            module.train(mode and part in learning)
        for part in self.fixed_bodies():
            self.model.get_submodule(f"{part}.body").eval()
        return self

    def check_batch(self, clips: int) -> None:
        """Raise UserError if the stage cannot learn from micro-batches of so many clips of one worker."""

    def begin(self, number: int) -> None:
        """What is collected next is the global batch's micro-batch of this number: draws begin again."""
        self.micro_batch = number
        if number:
            self.draws.manual_seed(self.draws.initial_seed())

    def collect(self, batch: Batch) -> Collected:
        """What all updates of this micro-batch read; called under no_grad."""
        return {
            "glance": batch.glance_BTCHW,
            "focus": batch.focus_BTCHW,
            "target": self.draw_labels(batch.labels_BL),
        }

    def prepare(self, collected: list[Collected]) -> None:
        """Change what was collected of all micro-batches, in place, before the updates; only if `whole_batch`."""

    def settle(self, training_clips: Callable[[], Iterable[Batch]]) -> dict[str, float]:
        """Set what is found with weights that stand still, before they are evaluated. What to log.

        Called, `training_clips` gives this worker's share of the training split, as an evaluation sees it.
        """
        return {}

    def draw_labels(self, labels_BL: Tensor) -> Tensor:
        """One class (B,) per clip: a random one of its labels, as the reference does for FCVID (one draws nothing).

        `labels_BL` is padded with -1.
        """
        if labels_BL.shape[1] == 1:
            return labels_BL[:, 0]
        whole = torch.rand(self.rows(len(labels_BL)), labels_BL.shape[1], generator=self.draws)
        chance_BL = self.own_rows(whole).to(labels_BL.device, non_blocking=True)
        return labels_BL.gather(1, chance_BL.where(labels_BL >= 0, -1.0).argmax(1, keepdim=True))[:, 0]

    def random_corners(self, frames_BTCHW: Tensor) -> Tensor:
        """A random patch for every action in clips of these glance frames, int64 (B, S, 2)."""
        batch, steps = len(frames_BTCHW), frames_BTCHW.shape[1] // self.model.maps_per_state
        sizes = (self.config.data.crop, self.config.model.patch_size)
        corners = random_corners((self.rows(batch), steps), *sizes, generator=self.draws)
        return self.own_rows(corners).to(frames_BTCHW.device, non_blocking=True)

    def rows(self, clips: int) -> int:
        """Clips of the global batch, of which a micro-batch with so many clips is collected."""
        return self.global_clips or clips * self.settings.accumulate * distributed.world_size()

    def parts(self, clips: int) -> float:
        """What a micro-batch of so many clips is divided by in a mean over clips, which workers then average: the
        number of micro-batches if all are as large."""
        return self.rows(clips) / (clips * distributed.world_size())

    def own_places(self, clips: int) -> Tensor:
        """For each row that is drawn for the global batch, the clip of the collected micro-batch that it could be for:
        in the micro-batch's own rows, its clips in their order."""
        rows = torch.arange(self.rows(clips))
        return (rows - self.own_rows(rows)[:1]) % clips

    def own_rows(self, whole: Tensor) -> Tensor:
        """Of rows that were drawn for the global batch, those of the micro-batch that is collected."""
        return distributed.own_rows(whole, self.micro_batch, self.settings.accumulate)

    @abstractmethod
    def forward(self, collected: Collected) -> tuple[Tensor, Logs]:
        """The loss of one update, a scalar, and what to log of it."""

    def judge(self, logits_BTK: Tensor, target_B: Tensor) -> Tensor:
        """The settings' cross-entropy of every prefix's prediction with the clip's class, over clips and prefixes."""
        settings = self.settings
        assert isinstance(settings, TrainingConfig)
        if settings.logit_adjustment:
            logits_BTK = logits_BTK + settings.logit_adjustment * self.class_shares_K.log()
        return prefix_loss(logits_BTK, target_B, settings.label_smoothing)

    def rate(self, parameter: str) -> float:
        """A parameter's learning rate, before scaling: networks at backbone_lr, heads and classifier at head_lr."""
        settings = self.settings
        assert isinstance(settings, OptimConfig)
        is_body = parameter.startswith(("model.glancer.body.", "model.focuser.body."))
        return settings.backbone_lr if is_body else settings.head_lr

    def optimizer(self) -> torch.optim.Optimizer:
        """A supervised stage's optimizer."""
        settings = self.settings
        assert isinstance(settings, TrainingConfig)
        groups: dict[float, list[nn.Parameter]] = {}  # by learning rate
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                groups.setdefault(settings.lr_scale() * self.rate(name), []).append(parameter)
        rows = [{"params": parameters, "lr": lr} for lr, parameters in groups.items()]
        if settings.optimizer == "adamw":
            return torch.optim.AdamW(rows, weight_decay=settings.weight_decay, fused=self.fused)
        sgd = torch.optim.SGD(rows, momentum=settings.momentum, weight_decay=settings.weight_decay, fused=self.fused)
        if self.fused and settings.momentum:
            _start_momentum(sgd)
        return sgd

    def lr_factor(self, group: int, done: float) -> float:
        """Where the settings have no schedule: what the rate of a group of the optimizer's parameters is multiplied by
        when a share of the training is done."""
        return 1.0

    @property
    def fused(self) -> bool:
        """One kernel for an optimizer's step: fast on GPUs, and the only one before which a scaler does not wait to
        hear of overflows. On a CPU it rounds otherwise than the plain one, and is left to fp16."""
        return next(self.parameters()).is_cuda or self.settings.precision == "fp16"


def _start_momentum(sgd: torch.optim.SGD) -> None:
    """Begin with momenta of zeros, which changes no step.

    The fused kernel would make them when first called, without values where a scaler leaves that step out, and go on
    from whatever the memory held.
    """
    for group in sgd.param_groups:
        for parameter in group["params"]:
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def prefix_loss(logits_BTK: Tensor, target_B: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of every prefix's prediction with the clip's class, averaged over clips and prefixes."""
    repeated_BT = target_B[:, None].expand(logits_BTK.shape[:2])
    return F.cross_entropy(logits_BTK.flatten(0, 1), repeated_BT.flatten(), label_smoothing=label_smoothing)
