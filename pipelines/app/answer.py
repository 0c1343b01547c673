"""What the page shows of a video: the prediction of one model, as a page of its own, with what it cost and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adafocus.evaluation.calibration import Calibration
from adafocus.inference.prediction import ClipFrames, Prediction
from adafocus.inference.predictor import AdaFocusPredictor
from pipelines.app.examples import Example
from pipelines.visualize.explain.explain_page import PageSection, PredictedClip, page
from preprocessing.datasets.videos import VIDEO_EXTENSIONS
from preprocessing.schema import UserError

WHOLE = 100
"""The budget, in percent of a whole clip's compute, at which there is no early exit."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's answer."""

    html: str
    """A page of its own: frames, boxes, heat map, confidence over time."""
    summary: str
    """What it cost, in words."""


class ShownModel:
    """A model on the page."""

    def __init__(self, name: str, predictor: AdaFocusPredictor) -> None:
        self.name, self.predictor = name, predictor
        self.calibration = Calibration.of(predictor.meta.exits)

    def answer(self, video: Path | Example, percent: float = WHOLE) -> Answer:
        """Predict a file that was uploaded, or an example, with a budget in percent of a whole clip's compute.

        Raises UserError for a file that is no video.
        """
        note = self._set_budget(percent)
        truth = video.truth if isinstance(video, Example) else None
        if isinstance(video, Example):
            clip, prediction = self.predictor.predict_clip(video.frames(self.predictor))
        elif video.suffix.lower() not in VIDEO_EXTENSIONS:
            raise UserError(f"{video.name} is no video: its name ends in none of {', '.join(VIDEO_EXTENSIONS)}")
        elif self.predictor.rule is not None:
            clip, prediction = self.predictor.predict_early(video)
        else:
            clip, prediction = self.predictor.predict_clip(self.predictor.read(video))
        if truth not in prediction.class_names:
            truth = None  # another model's example
        section = PageSection("", [PredictedClip(clip, prediction, truth)])
        return Answer(page(self.predictor, [section], ""), self._summary(clip, prediction) + note)

    def _set_budget(self, percent: float) -> str:
        """Set the budget; a remark where it could not be as asked."""
        if percent >= WHOLE:
            self.predictor.set_budget(None)
            return ""
        if self.calibration is None:
            self.predictor.set_budget(None)
            return " No thresholds of early exit: `adafocus calibrate` solves them."
        least, whole = self.calibration.budgets[0], self.calibration.costs[-1]
        self.predictor.set_budget(max(percent / 100 * whole, least))
        return f" The least budget is {least / whole:.0%}." if percent / 100 * whole < least else ""

    def _summary(self, clip: ClipFrames, prediction: Prediction) -> str:
        whole, used = self.predictor.gflops["total"], prediction.gflops["total"]
        frames = self.predictor.config.data.num_focus_frames
        seen = prediction.exit_frames[-1]
        stopped = f"stopped after {seen} of {frames} frames" if seen < frames else f"saw all {frames} frames"
        parts = ", ".join(f"{part} {value:.3g}" for part, value in prediction.gflops.items() if part != "total")
        times = ", ".join(f"{part} {value:.0f}" for part, value in prediction.times_ms.items() if value)
        total_ms = sum(prediction.times_ms.values())
        return (
            f"It {stopped}: {used:.3g} of {whole:.3g} GFLOPs ({used / whole:.0%}; {parts}), "
            f"{total_ms:.0f} ms ({times})."
        )
