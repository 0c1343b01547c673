"""The model that MLflow serves: a table of paths, or of arrays of frames, in; a table of predictions out.

This file is logged with the model and run where the model is loaded ("models from code"): nothing is pickled. Beside it
MLflow keeps the checkpoint and copies of the two packages that it imports from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from adafocus.inference.prediction import Prediction
from adafocus.inference.predictor import AdaFocusPredictor
from preprocessing.schema import UserError

NUM_CLASSES = 5
"""Of the likeliest classes so many are in the table."""


class VideoModel(PythonModel):
    """A trained model for tables of videos. A row has the `path` of a file that the server sees, or `frames`, which are
    all frames as integers (N, H, W, 3)."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the checkpoint, once."""
        self.predictor = AdaFocusPredictor.from_folder(context.artifacts["checkpoint"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row for each row. Of a video that cannot be read `error` says why; the others are predicted.

        The parameter `budget` (GFLOPs per video in the mean; 0: none) lets a calibrated model stop when it is sure.
        """
        self.predictor.set_budget((params or {}).get("budget") or None)
        return pd.DataFrame([self._row(values) for values in model_input.to_dict("records")])

    def _row(self, values: dict[Any, Any]) -> dict[str, Any]:
        try:
            prediction, error = self._predict(values), ""
        except (UserError, ValueError) as reason:
            prediction, error = None, str(reason)
        top = prediction.top(NUM_CLASSES) if prediction else []
        return {
            "class": top[0][0] if top else "",
            "probability": top[0][1] if top else 0.0,
            "top_classes": [name for name, _ in top],
            "top_probabilities": [p for _, p in top],
            "num_frames": prediction.source.num_frames if prediction else 0,
            "gflops": prediction.gflops["total"] if prediction else 0.0,
            "error": error,
        }

    def _predict(self, values: dict[Any, Any]) -> Prediction:
        frames, path = values.get("frames"), values.get("path")
        if isinstance(frames, list | np.ndarray):
            array = np.array([np.array(frame.tolist() if isinstance(frame, np.ndarray) else frame) for frame in frames])
            return self.predictor.predict(array.astype(np.uint8))
        if not isinstance(path, str):
            raise UserError("a row needs a path or frames")
        if not Path(path).exists():
            raise UserError(f"missing: there is no {path} here")
        return self.predictor.predict(path)


mlflow.models.set_model(VideoModel())
