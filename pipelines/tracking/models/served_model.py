"""Models in MLflow: a checkpoint with the code that loads and serves it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

from pipelines.tracking.run import Run


def log_served_model(
    run: Run, code: Path, checkpoint: Path, packages: Sequence[Path], requirements: Sequence[str]
) -> str:
    """Log a checkpoint with a run, as a model that MLflow loads and serves with `code`; its URI.

    `packages` are folders of code that it imports, `requirements` the names of installed packages.
    """
    with _current_store(run.uri), mlflow.start_run(run_id=run.run_id):
        logged = mlflow.pyfunc.log_model(
            name="video_model",
            python_model=str(code),
            artifacts={"checkpoint": str(checkpoint)},
            code_paths=[str(package) for package in packages],
            pip_requirements=[f"{name}=={version(name)}" for name in requirements],
            signature=_signature(),
            input_example=pd.DataFrame({"path": ["video.mp4"]}),
        )
    return str(logged.model_uri)


@contextlib.contextmanager
def _current_store(uri: str) -> Iterator[None]:
    """MLflow's own idea of the current store, which it keeps in the environment too, is `uri` meanwhile."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # None: as if it had never been set


def _signature() -> Any:
    """Columns of the served model's tables (pipelines/serving/pyfunc_model.py): one row a video."""
    frames = Array(Array(Array(Array(DataType.long))))
    videos = [ColSpec(DataType.string, "path", required=False), ColSpec(frames, "frames", required=False)]
    columns = {
        "class": DataType.string,
        "probability": DataType.double,
        "top_classes": Array(DataType.string),
        "top_probabilities": Array(DataType.double),
        "num_frames": DataType.long,
        "gflops": DataType.double,
        "error": DataType.string,
    }
    budget = ParamSchema([ParamSpec("budget", DataType.double, 0.0)])
    return ModelSignature(Schema(videos), Schema([ColSpec(kind, name) for name, kind in columns.items()]), budget)
