"""A self-contained page of explained clips: frames and numbers in, one HTML file out that needs nothing else."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from adafocus.inference.predictor import AdaFocusPredictor, ClipFrames, Prediction
from pipelines.visualize.figures import Seen, cut

Explained = tuple[Seen, ClipFrames, Prediction]
NUM_CURVES = 5
"""Classes whose confidence is drawn."""


def page(model: AdaFocusPredictor, sections: Sequence[tuple[str, Sequence[Explained]]], title: str) -> str:
    """One HTML page: sections (heading, clips), each clip to be scrubbed through.

    Shows for every frame what the glancer sees, the policy's probabilities over the frame, the patch, and the running
    prediction. Names of files and classes are data, never markup.
    """
    told = {
        "title": title,
        "sections": [
            {"heading": heading, "clips": [_clip(model, *explained) for explained in clips]}
            for heading, clips in sections
        ],
    }
    text = files("pipelines.visualize").joinpath("templates", "page.html").read_text()
    safe = json.dumps(told, ensure_ascii=True).replace("<", "\\u003c")
    return text.replace("/*DATA*/null", safe)


def _clip(model: AdaFocusPredictor, seen: Seen, clip: ClipFrames, found: Prediction) -> dict[str, Any]:
    config = model.config
    size, side = config.model.glance_size, config.data.crop
    glances_TCHW = clip.glance_TCHW
    if size != side:
        glances_TCHW = F.interpolate(glances_TCHW, (size, size), mode="bilinear", antialias=True)
    frames, glances = len(clip.focus_TCHW), len(glances_TCHW)
    shared = size == side and clip.focus_TCHW is clip.glance_TCHW
    shown = found.probability.max(0).values.topk(min(NUM_CURVES, len(found.class_names))).indices.tolist()
    shown.sort(key=lambda k: -float(found.probability[-1, k]))
    return {
        "title": seen.title,
        "truth": seen.truth,
        "count": found.source.num_frames,
        "fps": found.source.fps,
        "side": side,
        "patch": seen.patch_size,
        "glanceSize": size,
        "index": clip.index_T.tolist(),
        "corners": found.corners_T2.tolist(),
        "frames": [_jpeg(frame) for frame in clip.focus_TCHW],
        "glances": None if shared else [_jpeg(frame) for frame in glances_TCHW],
        "glanceOf": [step * glances // frames for step in range(frames)],
        "patches": [
            _jpeg(cut(frame, corner, seen.patch_size))
            for frame, corner in zip(clip.focus_TCHW, found.corners_T2.tolist(), strict=True)
        ],
        "maps": None if found.map_Skk is None else [_rounded(each) for each in found.map_Skk],
        "classes": [found.class_names[k] for k in shown],
        "curves": _rounded(found.probability[:, shown].T),
        "best": [{"name": name, "p": round(p, 4)} for name, p in seen.guesses],
        "gflops": round(found.gflops["total"], 3),
        "ms": {part: round(value, 1) for part, value in found.times_ms.items()},
    }


def _rounded(values: Tensor) -> list[list[float]]:
    return [[round(value, 4) for value in row] for row in values.tolist()]


def _jpeg(frame_CHW: Tensor) -> str:
    """A frame as a data URL."""
    buffer = io.BytesIO()
    Image.fromarray(frame_CHW.permute(1, 2, 0).contiguous().numpy()).save(buffer, "JPEG", quality=88, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
