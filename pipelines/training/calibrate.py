"""Calibration of a checkpoint that a user has named; the thresholds go into the artifacts of its run too."""

from __future__ import annotations

from adafocus import checkpoint
from adafocus.evaluation.calibration import Calibration, CalibrationClips
from adafocus.evaluation.exit_thresholds import Criterion
from adafocus.training.calibrate import calibrate
from adafocus.training.reports import Options
from pipelines.paths import Places
from pipelines.tracking.client import Tracker
from pipelines.tracking.models.checkpoints import SelectedCheckpoint
from pipelines.training.trial_logger import MODEL


def calibrate_selected(
    selected: SelectedCheckpoint,
    places: Places,
    options: Options,
    criterion: Criterion,
    clips: CalibrationClips | None,
    batch_size: int,
) -> Calibration:
    """Calibrate it, or find it calibrated. Raises UserError as `calibrate`."""
    found = calibrate(selected.folder, places.shards, options, criterion=criterion, clips=clips, batch_size=batch_size)
    if selected.run_id:
        Tracker.at(places, patient=True).open(selected.run_id).log_artifact(selected.folder / checkpoint.META, MODEL)
    return found
