"""A model to share: a folder with config.json, model.safetensors and README.md, as Hugging Face's hub shows models.

config.json holds all that a checkpoint's record does, so that such a folder is read like any checkpoint; nothing in it
is code, and nothing names a place on the machine that made it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from safetensors.torch import save as save_tensors

from adafocus import checkpoint
from adafocus.checkpoint import Meta
from adafocus.evaluation import multiply_adds
from adafocus.models.adafocus import IMAGENET_MEAN, IMAGENET_STD, AdaFocus
from preprocessing.files import write_file
from preprocessing.schema import ExtractionSpec, UserError

WEIGHTS = "model.safetensors"
CARD = "README.md"
FILES = (checkpoint.SHARED, WEIGHTS, CARD)
"""All that such a folder holds."""


def save_pretrained(folder: Path, out: Path, spec: ExtractionSpec, card: str) -> None:
    """Write the checkpoint in `folder` to `out`. `spec`: how its frames were extracted; `card`: its README.

    Raises UserError if there is something else in `out`.
    """
    if out.exists() and not (out.is_dir() and {path.name for path in out.iterdir()} <= set(FILES)):
        raise UserError(f"{out} exists and holds something else: choose another folder, or remove it")
    model, meta = checkpoint.load_model(folder)
    out.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    write_file(out / WEIGHTS, save_tensors(tensors, metadata={"format": "pt"}))
    write_file(out / CARD, card.encode())
    record = replace(meta, weights=WEIGHTS, extraction=asdict(spec), config=_without_places(meta.config))
    write_file(out / checkpoint.SHARED, json.dumps(config_json(model, record, spec), indent=1).encode())


def config_json(model: AdaFocus, record: Meta, spec: ExtractionSpec) -> dict[str, Any]:
    """What config.json says: facts for readers first, then the whole record."""
    data = record.config
    return {
        "library_name": "adafocus",
        "model_type": data.get("method", "adafocus"),
        "id2label": {str(number): name for number, name in enumerate(record.class_names)},
        "preprocessing": {
            "extraction": asdict(spec),
            "num_frames": model.config.data.num_frames,
            "num_focus_frames": model.config.data.num_focus_frames,
            "resize_short_side": model.config.data.resize,
            "crop": model.config.data.crop,
            "patch_size": model.config.model.patch_size,
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
        },
        "gflops": multiply_adds.count_model(model)["total"],
        checkpoint.RECORD: asdict(record),
    }


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with files that lie somewhere on this machine by their names alone."""

    def name(value: Any) -> Any:
        absolute = isinstance(value, str) and (PurePath(value).is_absolute() or PureWindowsPath(value).is_absolute())
        return PureWindowsPath(value).name if absolute else value

    return {key: name(value) for key, value in config.items()}
