"""An imported model: its record, and its place among the results of stages.

As a stage's result it lies where training looks for one that is finished, so `train` and `tune` continue from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adafocus import checkpoint
from adafocus.checkpoint import Meta
from adafocus.config.schema import Config
from adafocus.interop import reference_checkpoints
from adafocus.methods import method_of
from adafocus.methods.identity import stage_key
from adafocus.training.stage_lock import StageLock
from preprocessing.addresses import without_secrets
from preprocessing.schema import DatasetInfo, ExtractionSpec, UserError
from preprocessing.shards.index import read_metadata


def describe_import(
    imported: reference_checkpoints.Imported,
    config: Config,
    recipe: str,
    stage: str,
    shards: str | None,
    files: Sequence[dict[str, Any]],
) -> Meta:
    """The record of an imported model, as the result of `stage`; `files` are the records of the files it came from.

    Raises UserError for an unknown stage, and if the data set at `shards` has another number of classes.
    """
    method_of(config).stage(stage)
    classes = imported.model.num_classes
    info = DatasetInfo(recipe.rsplit("-", 1)[0], tuple(f"class {number}" for number in range(classes)))
    key, digest, spec = "", "", ExtractionSpec()  # the height of the authors' frames
    if shards:
        dataset = read_metadata(shards)
        info, digest, spec = dataset.info, dataset.digest, dataset.spec
        key = stage_key(config, stage, dataset.version)
        if info.num_classes != classes:
            raise UserError(
                f"the checkpoint has {classes} classes, but {without_secrets(shards)} has {info.num_classes}"
            )
    return Meta.describe(config, stage=stage, key=key, digest=digest, info=info, extraction=spec, imported=files)


def save_as_stage(runs: Path, imported: reference_checkpoints.Imported, meta: Meta) -> Path:
    """Save an imported model as the result of its stage below `runs`; its folder.

    Raises UserError if that stage has a result already, and for the last stage, which no other would follow.
    """
    reference_checkpoints.check_stage(imported, meta.stage)
    if meta.stage == meta.method.last:
        raise UserError(
            "this is a finished model, behind which no stage follows: give --out, or --stage ppo to finetune it again"
        )
    folder = runs / f"{meta.stage}-{meta.key}"
    lock = StageLock(runs, folder.name)
    if not lock.take():
        raise UserError(f"{folder} is being trained by {lock.holder}")
    try:
        if (folder / checkpoint.META).exists():
            raise UserError(f"{folder} is there already: take another folder for --runs, or remove it")
        checkpoint.save(folder, imported.model, meta)
        return folder
    finally:
        lock.release()
