"""A finished run as a folder for other programs. In: a checkpoint and real clips; out: files, each checked."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from string import Template
from types import ModuleType
from typing import Any

import adafocus
import preprocessing
from adafocus import checkpoint
from adafocus.data.clip_table import ClipTable, evaluation_split
from adafocus.inference.packed_clips import packed_clip
from adafocus.inference.prediction import ClipFrames, VideoError
from adafocus.inference.predictor import AdaFocusPredictor
from adafocus.interop.export import export_programs, facts
from pipelines.tracking.run import Run
from pipelines.tracking.served_model import log_served_model
from preprocessing.files import atomic_write
from preprocessing.media.arguments import extraction_argv
from preprocessing.schema import UserError

NUM_CLIPS = 2
"""Real clips on which the files are compared with the model."""
STEPS = {
    "frame": """4. `focuser(patches)` gives `focus`; `classifier(focus, classifier_state$glance)` gives the
   prediction after this frame, and the next state. Steps 3 and 4 are repeated for every frame: a video can be followed
   while it arrives.""",
    "clip": """4. `focuser(patches)`, of the same place in $focus frames, gives `focus`; `classifier(focus$glance)`
   gives the prediction after 1, 2, ... frames. One look serves the whole clip.""",
}
REQUIREMENTS = (
    *("torch", "torchvision", "numpy", "pandas", "pillow", "pyarrow", "safetensors"),
    *("ffmpeg-python", "imageio-ffmpeg", "simplejpeg"),
)
"""Packages that a served model imports."""


def export(
    folder: Path, out: Path, *, shards: str | None, videos: Sequence[Path] = (), title: str = ""
) -> dict[str, Any]:
    """Write the folder `out` (made whole by a rename) of the checkpoint in `folder`; returns its facts.

    The files are compared with the model on `videos`, or else on clips of the data set at `shards`. Raises UserError if
    `out` exists, if there are neither, or if none of the videos can be read.
    """
    if out.exists():
        raise UserError(f"{out} exists: choose another --out, or remove it")
    model, meta = checkpoint.load_model(folder)
    predictor = AdaFocusPredictor(folder, device="cpu", shards=shards)
    clips = _read(predictor, videos) if videos else packed_clips(predictor, shards, NUM_CLIPS)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as partial:
        partial.mkdir()
        told = facts(model, meta, predictor.spec, export_programs(model, clips, partial))
        checkpoint.save(partial, model, replace(meta, extraction=asdict(predictor.spec)))
        (partial / "facts.json").write_text(json.dumps(told, indent=1))
        (partial / "README.md").write_text(_readme(told, title or folder.name, len(clips), predictor))
        script = files("pipelines.serving").joinpath("templates", "predict_onnx.py")
        (partial / "predict_onnx.py").write_text(script.read_text())
    return told


def log_model(run: Run, exported: Path) -> str:
    """Log an exported folder's checkpoint as a model that MLflow loads and serves; its URI."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "checkpoint"
        folder.mkdir()
        meta = checkpoint.read_meta(exported)
        for name in (checkpoint.META, meta.weights):
            shutil.copy(exported / name, folder / name)
        code = [copy_package(package, Path(temporary)) for package in (adafocus, preprocessing)]
        served = files("pipelines.serving").joinpath("pyfunc_model.py")
        return log_served_model(run, Path(str(served)), folder, code, REQUIREMENTS)


def copy_package(package: ModuleType, folder: Path) -> Path:
    """A copy of a package's source."""
    source, target = Path(package.__path__[0]), folder / package.__name__
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def packed_clips(predictor: AdaFocusPredictor, shards: str | None, count: int) -> list[ClipFrames]:
    """Clips spread over the evaluation split of a data set. Raises UserError if there is none."""
    if shards is None:
        raise UserError("give --shards or --video: real frames to compare the exported files on")
    table = ClipTable(shards, evaluation_split(shards), count)
    return [packed_clip(predictor, table, number) for number in range(len(table))]


def _read(predictor: AdaFocusPredictor, videos: Sequence[Path]) -> list[ClipFrames]:
    try:
        return [predictor.read(video) for video in videos]
    except VideoError as error:
        raise UserError(f"--video cannot be read: {error}") from error


def _readme(told: dict[str, Any], title: str, num_clips: int, predictor: AdaFocusPredictor) -> str:
    data = told["preprocessing"]
    used = told["glance_input"]
    steps = Template(STEPS[told["by"]]).substitute(glance=f", {used}" if used else "", focus=data["num_focus_frames"])
    rows = [
        f"| {name} | {part['pt2_error']:.1e} | {part['onnx_error']:.1e} |" for name, part in told["programs"].items()
    ]
    argv = extraction_argv("VIDEO", predictor.spec)
    kept = ("-fps_mode", "-q:v", "-vf", "-r", "-frames:v")
    words = [f"{flag} {argv[argv.index(flag) + 1]}" for flag in kept if flag in argv]
    return Template(files("pipelines.serving").joinpath("templates", "export.md").read_text()).substitute(
        title=title,
        method=told["method"],
        num_classes=len(told["class_names"]),
        num_clips=num_clips,
        ffmpeg=" ".join(words),
        num_frames=data["num_frames"],
        resize=data["resize_short_side"],
        crop=data["crop"],
        patch=told["patch_size"],
        steps=steps,
        errors="\n".join(rows),
    )
