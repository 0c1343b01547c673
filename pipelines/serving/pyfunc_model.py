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

from adafocus.inference.predictor import AdaFocusPredictor, Prediction
from preprocessing.schema import UserError

TOP = 5


class VideoModel(PythonModel):
    """One row a video: `path` of a file that the server sees, or `frames`, all of them, integers (N, H, W, 3)."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the checkpoint, once."""
        self.predictor = AdaFocusPredictor.from_folder(context.artifacts["checkpoint"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """A row for each row. A video that cannot be read has its reason in `error`; the others are answered."""
        return pd.DataFrame([self._row(given) for given in model_input.to_dict("records")])

    def _row(self, given: dict[Any, Any]) -> dict[str, Any]:
        try:
            found, error = self._predict(given), ""
        except (UserError, ValueError) as reason:
            found, error = None, str(reason)
        top = found.top(TOP) if found else []
        return {
            "class": top[0][0] if top else "",
            "probability": top[0][1] if top else 0.0,
            "top_classes": [name for name, _ in top],
            "top_probabilities": [p for _, p in top],
            "num_frames": found.source.num_frames if found else 0,
            "error": error,
        }

    def _predict(self, given: dict[Any, Any]) -> Prediction:
        frames, path = given.get("frames"), given.get("path")
        if isinstance(frames, list | np.ndarray):
            array = np.array([np.array(frame.tolist() if isinstance(frame, np.ndarray) else frame) for frame in frames])
            return self.predictor.predict(array.astype(np.uint8))
        if not isinstance(path, str):
            raise UserError("a row needs a path or frames")
        if not Path(path).exists():
            raise UserError(f"missing: there is no {path} here")
        return self.predictor.predict(path)


mlflow.models.set_model(VideoModel())
