"""The stage that needs no gradients: thresholds of early exit for a finished checkpoint, kept in its meta.json.

They belong to the checkpoint, so that whoever has it (trials that share it, predict, exports) has them too. meta.json
is replaced by rename: a calibration that is killed leaves the checkpoint as it was.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path

from adafocus import checkpoint
from adafocus.acceleration.accelerate import accelerate
from adafocus.checkpoint import Meta
from adafocus.data.loader import ClipLoader
from adafocus.devices import pick_device
from adafocus.evaluation import multiply_adds
from adafocus.evaluation.calibration import SAVES_NOTHING, Calibration, CalibrationClips, solve
from adafocus.evaluation.evaluate import evaluate
from adafocus.evaluation.exit_thresholds import Criterion
from adafocus.training.reports import Options
from preprocessing.addresses import without_secrets
from preprocessing.schema import UserError
from preprocessing.shards.index import read_metadata

log = logging.getLogger(__name__)


def calibrate(
    folder: Path,
    shards: str,
    options: Options,
    *,
    criterion: Criterion = "confidence",
    clips: CalibrationClips | None = None,
    batch_size: int = 32,
) -> Calibration:
    """Calibrate a checkpoint on the training split of `shards`, or find it calibrated in the same way.

    `clips` None takes those that its training has left out, if there are any. Raises UserError for a checkpoint without
    a trained policy or with exits that all cost the same, and for shards with other classes.
    """
    meta = checkpoint.read_meta(folder)
    share = float(meta.config.get("data.held_out", 0.0))
    clips = clips or ("held-out" if share else "train")
    if clips == "held-out" and not share:
        raise UserError(f"{folder} was trained on all clips: --set data.held_out=0.1 leaves some out of its training")
    wanted = (criterion, clips, _check(meta, folder, shards))
    found = Calibration.of(meta.exits)
    if found and (found.criterion, found.clips, found.digest) == wanted:
        log.info("%s: found calibrated", folder.name)
        return found
    return _calibrate(folder, shards, options, wanted, batch_size)


def _check(meta: Meta, folder: Path, shards: str) -> str:
    """The digest of the data set. Raises UserError if the checkpoint cannot be calibrated on it."""
    if lacking := meta.lacking("policy"):
        raise UserError(f"{folder} is of stage {meta.stage}, after which its {lacking[0]} is not trained yet")
    dataset = read_metadata(shards)
    if list(meta.class_names) != list(dataset.info.class_names):
        raise UserError(
            f"{folder} knows other classes than {without_secrets(shards)}: it was trained on {meta.info['name']}"
        )
    return dataset.digest


def _calibrate(
    folder: Path,
    shards: str,
    options: Options,
    wanted: tuple[Criterion, CalibrationClips, str],
    batch_size: int,
) -> Calibration:
    model, _ = checkpoint.load_model(folder)
    criterion, clips, digest = wanted
    if not model.saves_early:
        raise UserError(f"{folder}: {SAVES_NOTHING}")
    loader = ClipLoader(
        shards,
        "train",
        model.config.data,
        batch_size=batch_size,
        train=False,
        num_workers=options.num_workers,
        held_out=clips == "held-out",
    )
    kind = {"train": "that it was trained on", "held-out": "that its training has left out"}[clips]
    log.info("%s: calibrating early exit on %d clips %s", folder.name, len(loader.clip_ids), kind)
    predictions = evaluate(accelerate(model.to(pick_device(options.device))), loader)
    looks_NT = predictions.looks_NT
    looks_T = None if looks_NT is None else looks_NT.float().mean(0).tolist()
    costs = multiply_adds.exit_costs(model.config, model.num_classes, looks_T=looks_T)
    calibration = solve(predictions, costs, criterion=criterion, clips=clips, digest=digest)
    checkpoint.write_meta(folder, replace(checkpoint.read_meta(folder), exits=asdict(calibration)))
    return calibration
