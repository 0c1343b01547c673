"""What the stages have in common: which parts learn, at which rate, and the shape of one step."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adafocus import distributed
from adafocus.config import Config, OptimConfig, PPOConfig
from adafocus.infer import accelerate
from adafocus.loader import Batch
from adafocus.models.adafocus import AdaFocus, Glance, Patches
from adafocus.models.patches import random_corners

TRAINABLE: dict[str, tuple[str, ...]] = {
    "pretrain": ("glancer", "focuser"),
    "warmup": ("focuser", "classifier"),
    "ppo": ("policy",),
    "finetune": ("focuser", "classifier"),
}
"""Parts that learn and are in training mode; the others are frozen and in evaluation mode. A backbone_lr of 0 freezes
the networks too, as in the reference's last stage; in pretrain their own last layers still learn (a linear probe)."""

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
    patches: ClassVar[Patches | None]
    """Where the stage looks; None: at whole frames."""

    def __init__(self, model: AdaFocus, config: Config) -> None:
        super().__init__()
        self.model = model
        self.config = config
        learning, fixed = self.learning_parts(), self.fixed_bodies()
        for part, module in model.named_children():
            module.requires_grad_(part in learning)
        for part in fixed:
            model.get_submodule(f"{part}.body").requires_grad_(False)
        if "classifier" in learning:  # which stands in for the networks' own last layers
            model.focuser.last.requires_grad_(False)
        fast = accelerate(model, parts=fixed, precision=self.settings.precision) if fixed else model
        self._fast = (fast,)  # in a tuple, so that it does not become a submodule
        self.draws = torch.Generator()
        """Of random patches, actions and labels: in the same state on all workers. Each draws for the global batch and
        keeps its own clips' rows, so that what is drawn does not depend on the number of workers."""

    @property
    def fast(self) -> AdaFocus:
        """The model with its frozen networks folded and in this stage's precision; it shares all parts that learn."""
        return self._fast[0]

    @property
    def settings(self) -> OptimConfig | PPOConfig:
        """This stage's part of the configuration."""
        settings: OptimConfig | PPOConfig = getattr(self.config, self.name)
        return settings

    @property
    def updates_per_batch(self) -> int:
        """Passes over what `collect` returned."""
        return 1

    def learning_parts(self) -> tuple[str, ...]:
        """Names of the model's parts that this stage trains."""
        parts = TRAINABLE[self.name]
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

    def collect(self, batch: Batch) -> Collected:
        """What all updates of this batch read; called under no_grad."""
        return {
            "glance": batch.glance_BTCHW,
            "focus": batch.focus_BTCHW,
            "target": draw_labels(batch.labels_BL, self.draws),
        }

    def random_corners(self, glance: Glance) -> Tensor:
        """A random patch for every action, int64 (B, S, 2)."""
        batch, steps = self.model.action_shape(glance)
        sizes = (self.config.data.crop, self.config.model.patch_size)
        corners = random_corners((batch * distributed.world_size(), steps), *sizes, generator=self.draws)
        return distributed.own_rows(corners).to(glance.feature_BTD.device, non_blocking=True)

    @abstractmethod
    def forward(self, collected: Collected) -> tuple[Tensor, Logs]:
        """The loss of one update, a scalar, and what to log of it."""

    def optimizer(self) -> torch.optim.Optimizer:
        """A supervised stage's optimizer: heads and classifier at head_lr, networks at backbone_lr."""
        settings = self.settings
        assert isinstance(settings, OptimConfig)
        groups: dict[float, list[nn.Parameter]] = {}  # by learning rate
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                is_body = name.startswith(("model.glancer.body.", "model.focuser.body."))
                lr = settings.lr_scale() * (settings.backbone_lr if is_body else settings.head_lr)
                groups.setdefault(lr, []).append(parameter)
        rows = [{"params": parameters, "lr": lr} for lr, parameters in groups.items()]
        if settings.optimizer == "adamw":
            return torch.optim.AdamW(rows, weight_decay=settings.weight_decay)
        return torch.optim.SGD(rows, momentum=settings.momentum, weight_decay=settings.weight_decay)


def draw_labels(labels_BL: Tensor, draws: torch.Generator) -> Tensor:
    """One class (B,) per clip: a random one of its labels, as the reference does for FCVID (one label draws nothing).

    `labels_BL` is padded with -1; `draws` is in the same state on all workers.
    """
    if labels_BL.shape[1] == 1:
        return labels_BL[:, 0]
    whole = torch.rand(len(labels_BL) * distributed.world_size(), labels_BL.shape[1], generator=draws)
    chance_BL = distributed.own_rows(whole).to(labels_BL.device, non_blocking=True)
    return labels_BL.gather(1, chance_BL.where(labels_BL >= 0, -1.0).argmax(1, keepdim=True))[:, 0]


def prefix_loss(logits_BTK: Tensor, target_B: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of every prefix's prediction with the clip's class, averaged over clips and prefixes."""
    repeated_BT = target_B[:, None].expand(logits_BTK.shape[:2])
    return F.cross_entropy(logits_BTK.flatten(0, 1), repeated_BT.flatten(), label_smoothing=label_smoothing)
