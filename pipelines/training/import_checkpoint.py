"""What an imported checkpoint becomes: a folder with a record of the files it came from, or a stage's result.

As a stage's result it lies where training looks for one that is finished, so `train` and `tune` go on behind it.
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


def describe(
    imported: reference_checkpoints.Imported,
    config: Config,
    recipe: str,
    stage: str,
    shards: str | None,
    files: Sequence[dict[str, Any]],
) -> Meta:
    """The record of an imported model. Raises UserError for an unknown stage and for classes other than the shards'."""
    method_of(config).stage(stage)
    classes = imported.model.num_classes
    info = DatasetInfo(recipe.rsplit("-", 1)[0], tuple(f"class {number}" for number in range(classes)))
    digest, spec = "", ExtractionSpec()  # the height of the authors' frames
    if shards:
        dataset = read_metadata(shards)
        info, digest, spec = dataset.info, dataset.digest, dataset.spec
        if info.num_classes != classes:
            raise UserError(
                f"the checkpoint has {classes} classes, but {without_secrets(shards)} has {info.num_classes}"
            )
    key = stage_key(config, stage, digest) if shards else ""
    return Meta.describe(config, stage=stage, key=key, digest=digest, info=info, extraction=spec, imported=files)


def save(folder: Path, imported: reference_checkpoints.Imported, meta: Meta) -> Path:
    """Write the checkpoint to a folder of its own."""
    checkpoint.save(folder, imported.model, meta)
    return folder


def commit(runs: Path, imported: reference_checkpoints.Imported, meta: Meta) -> Path:
    """Make the checkpoint the result of its stage below `runs`. Raises UserError if that is there, or the last."""
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
        return save(folder, imported, meta)
    finally:
        lock.release()


def parts_of(meta: Meta) -> list[str] | None:
    """The parts that files have filled; None of a model that was trained here, which has all of its stage."""
    return [part for record in meta.imported for part in record["parts"]] or None


def told(meta: Meta) -> dict[str, float]:
    """What a checkpoint knows of its epoch and accuracies, by the names of the authors' files.

    Of an imported one what its files say alike; else the stage's last epoch, its accuracy and the best one (in percent,
    by the data set's metric).
    """
    if meta.imported:
        return dict(set.intersection(*(set(_numbers(record).items()) for record in meta.imported)))
    scores = _curve(meta, f"{meta.stage}/val_{meta.info['metric']}")
    return {
        "epoch": meta.config[f"{meta.stage}.epochs"],
        **({"acc": scores[-1], "best_acc": max(scores)} if scores else {}),
    }


def told_of_parts(meta: Meta) -> dict[str, dict[str, float]]:
    """The same of each network, where they were trained apart."""
    if meta.imported:
        return {part: _numbers(record) for record in meta.imported for part in record["parts"]}
    curves = {part: _curve(meta, f"{meta.stage}/val_{part}_top1") for part in ("glancer", "focuser")}
    return {part: {"best_prec1": max(scores)} for part, scores in curves.items() if scores}


def _numbers(record: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in record.items() if name not in ("name", "sha256", "parts")}


def _curve(meta: Meta, name: str) -> list[float]:
    return [row["metrics"][name] for row in meta.history if name in row["metrics"]]
