"""Learning rates for another batch size than a recipe's."""

from __future__ import annotations

import logging

from adafocus.config.overrides import override
from adafocus.config.schema import Config, TrainingConfig
from adafocus.methods import method_of

log = logging.getLogger(__name__)


def scale_rates(config: Config, recipe: Config) -> Config:
    """`config` with the rates of its SGD stages meant for the recipe's batch sizes: they follow the batch linearly.

    The rule is SGD's; rates of Adam and AdamW stay, and the log says so. What becomes of the others is logged when
    their stage starts.
    """
    changes = {}
    for stage in method_of(config).stage_names:
        settings, size = getattr(config, stage), getattr(recipe, stage).batch_size
        if isinstance(settings, TrainingConfig) and settings.optimizer == "sgd":
            changes[f"{stage}.lr_batch_size"] = size
        else:
            log.info("%s: rates are Adam's and stay as they are at any batch", stage)
    return override(config, changes)
