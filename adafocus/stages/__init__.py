"""The four stages of training and what each of them trains.

pretrain: both networks as frame classifiers. warmup: focuser and classifier on random patches. ppo: the policy by
reinforcement. finetune: the classifier on the policy's patches (the reference's stages 0 to 3).
"""

from __future__ import annotations

from adafocus.stages.finetune import Finetune
from adafocus.stages.ppo import PPO
from adafocus.stages.pretrain import Pretrain
from adafocus.stages.stage import TRAINABLE, Stage
from adafocus.stages.warmup import Warmup

STAGES: dict[str, type[Stage]] = {"pretrain": Pretrain, "warmup": Warmup, "ppo": PPO, "finetune": Finetune}

__all__ = ["STAGES", "TRAINABLE", "Stage"]
