"""Stage III: the classifier learns on the patches that the finished policy picks (as the reference)."""

from __future__ import annotations

from torch import Tensor

from adafocus.config.schema import Config
from adafocus.models.adafocus import AdaFocus, Patches
from adafocus.models.classifier import GRUClassifier, MeanClassifier
from adafocus.stages.stage import Collected
from adafocus.stages.warmup import Warmup


class Finetune(Warmup):
    """As the warm-up, with the policy's most probable patches. Published recipes freeze the focuser (backbone_lr 0)."""

    name = "finetune"
    reads = ("model.finetune_dropout", "finetune")
    patches = "policy"

    def __init__(self, model: AdaFocus, config: Config) -> None:
        super().__init__(model, config)
        if config.model.finetune_dropout is not None:
            assert isinstance(model.classifier, GRUClassifier | MeanClassifier)
            model.classifier.dropout.p = config.model.finetune_dropout

    def patch_source(self, collected: Collected) -> Patches | Tensor:
        """The policy."""
        return "policy"
