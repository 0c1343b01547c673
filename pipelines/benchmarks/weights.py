"""The models that a benchmark measures: a checkpoint's own, and that of the warm-up stage that it came from."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from adafocus import checkpoint
from adafocus.checkpoint import Meta
from adafocus.config.overrides import from_flat
from adafocus.methods.identity import stage_folder
from adafocus.models.adafocus import AdaFocus
from pipelines.benchmarks.rows import Weights
from preprocessing.addresses import without_secrets
from preprocessing.schema import DatasetInfo, UserError

log = logging.getLogger(__name__)

WARMUP = "warmup"
"""The stage that learns with random patches, where a method has it."""


def load_models(
    folder: Path, shards: str, info: DatasetInfo, device: torch.device
) -> tuple[Meta, dict[Weights, AdaFocus]]:
    """A checkpoint's meta.json, and the models by their weights; the warm-up's is left out if it is not there.

    Raises UserError for a checkpoint that cannot be measured on these shards.
    """
    model, meta = checkpoint.load_model(folder)
    if lacking := meta.lacking("random"):
        raise UserError(
            f"{folder} is of stage {meta.stage}, after which its {lacking[0]} still holds initial weights, so "
            f"that there is nothing to measure: take a checkpoint of stage {' or '.join(meta.method.suited('random'))}"
        )
    if meta.info["class_names"] != list(info.class_names):
        raise UserError(
            f"{folder} knows other classes than {without_secrets(shards)}: it was trained on {meta.info['name']}"
        )
    models: dict[Weights, AdaFocus] = {"own": model.to(device)}
    warmup = _warmup_of(meta, folder.parent)
    if warmup is not None:
        models["warmup"] = checkpoint.load_model(warmup)[0].to(device)
    return meta, models


def _warmup_of(meta: Meta, runs: Path) -> Path | None:
    """Folder of the warm-up that a later checkpoint came from; None if it is gone or was trained elsewhere."""
    if not meta.key or meta.stage == WARMUP or WARMUP not in meta.method.stage_names:
        return None
    name = next((name for name in meta.stages if name.startswith(f"{WARMUP}-")), "")
    try:  # records of old name only their own stage
        folder = runs / name if name else stage_folder(WARMUP, from_flat(meta.config), runs, meta.digest)
    except UserError as error:
        log.info("the warm-up that it came from is not known (%s): its row is left out", error)
        return None
    if (folder / checkpoint.META).exists():
        return folder
    log.info("%s is gone: its row is left out", folder)
    return None
