"""The curve of early exit: for each calibrated budget what a model reaches on the evaluation split, and its cost."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from adafocus import checkpoint
from adafocus.data.loader import Batch
from adafocus.evaluation import metrics, multiply_adds
from adafocus.evaluation.calibration import SAVES_NOTHING, Calibration
from adafocus.evaluation.evaluate import Predictions
from adafocus.evaluation.exit_thresholds import certainty, choose_exits
from adafocus.models.adafocus import AdaFocus
from adafocus.training.calibrate import calibrate
from adafocus.training.reports import Options
from pipelines.benchmarks import profiling

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExitPoint:
    """What a budget gives. Percentages, GFLOPs (multiply-adds) per video."""

    percent: int
    """The budget in percent of a whole clip's compute."""
    budget: float
    """What clips were to take in the mean, on the clips that the thresholds were solved on."""
    gflops: float
    """What they take in the mean here: all that has been computed by each clip's exit."""
    pro_rata_gflops: float
    """The same with every exit counted as its share of the total, as AdaFocusV2's authors do."""
    frames: float
    """Frames of a clip that the focuser sees, in the mean."""
    top1: float
    top5: float
    map: float
    videos_per_s: float
    """Of a batch from which clips are taken out when they stop."""
    latency_ms: float
    """One video at a time: the mean over the clips of the time until their exit."""


def calibration_for(folder: Path, model: AdaFocus, shards: str, options: Options) -> Calibration | None:
    """The checkpoint's calibration, solved now if it has none; None where there is nothing to exit from."""
    meta = checkpoint.read_meta(folder)
    if meta.lacking("policy"):
        log.info("early exit: left out, for after %s there is no policy", meta.stage)
        return None
    if not model.saves_early:
        log.info("%s", SAVES_NOTHING)
        return None
    found = Calibration.of(meta.exits)
    if found is None:
        return calibrate(folder, shards, options)
    return calibrate(folder, shards, options, criterion=found.criterion, clips=found.clips)


def exit_curve(model: AdaFocus, calibration: Calibration, predictions: Predictions, sample: Batch) -> list[ExitPoint]:
    """A point for each budget. `predictions` are those of every exit on the evaluation split; times are of `sample`."""
    certainty_NX = certainty(predictions.logits_NTK, calibration.criterion)
    looks_NT = predictions.looks_NT
    if looks_NT is None:
        cost_NX = torch.tensor(calibration.costs, dtype=torch.float64).expand(len(certainty_NX), -1)
    else:
        cost_NX = multiply_adds.clip_costs(model.config, model.num_classes, looks_NT)
    clip, clips = profiling.first_clip(sample), torch.arange(len(certainty_NX))
    points = []
    for rule in calibration.rules():
        exits_N = choose_exits(certainty_NX, rule.thresholds)
        scores = metrics.scores(predictions.logits_NTK[clips, exits_N], predictions.labels_NL)
        reached = profiling.seconds_to_exits(model, clip, rule)
        points.append(
            ExitPoint(
                percent=round(100 * rule.budget / calibration.costs[-1]),
                budget=rule.budget,
                gflops=float(cost_NX[clips, exits_N].mean()),
                pro_rata_gflops=calibration.pro_rata(exits_N),
                frames=float(torch.tensor(model.exit_frames)[exits_N].double().mean()),
                **scores,
                videos_per_s=len(sample.clip_ids) / profiling.median_early_seconds(model, sample, rule),
                latency_ms=1000 * sum(reached[number] for number in exits_N.tolist()) / len(exits_N),
            )
        )
    return points
