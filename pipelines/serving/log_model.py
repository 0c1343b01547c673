"""Logs an exported model to MLflow, which can then load and serve it with `pyfunc_model.py`."""

from __future__ import annotations

import shutil
import tempfile
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import adafocus
import preprocessing
from adafocus import checkpoint
from pipelines.tracking.models.served_model import log_served_model
from pipelines.tracking.run import Run

REQUIREMENTS = (
    *("torch", "torchvision", "numpy", "pandas", "pillow", "pyarrow", "safetensors"),
    *("ffmpeg-python", "imageio-ffmpeg", "simplejpeg"),
)
"""Packages that a served model imports."""


def log_model(run: Run, exported: Path) -> str:
    """Log the checkpoint of an exported folder as a model that MLflow loads and serves; returns its URI."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "checkpoint"
        folder.mkdir()
        meta = checkpoint.read_meta(exported)
        for name in (checkpoint.META, meta.weights):
            shutil.copy(exported / name, folder / name)
        packages = [copy_package(package, Path(temporary)) for package in (adafocus, preprocessing)]
        code_file = files("pipelines.serving").joinpath("pyfunc_model.py")
        return log_served_model(run, Path(str(code_file)), folder, packages, REQUIREMENTS)


def copy_package(package: ModuleType, folder: Path) -> Path:
    """Copy a package's source into a folder; returns the copy."""
    source, target = Path(package.__path__[0]), folder / package.__name__
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target
