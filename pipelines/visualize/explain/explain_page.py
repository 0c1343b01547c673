"""A self-contained page of predicted clips: frames and numbers in, one HTML file out that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from adafocus.inference.prediction import ClipFrames, Prediction
from adafocus.inference.predictor import AdaFocusPredictor
from pipelines.visualize.drawing import cut_patch
from pipelines.visualize.embed import embed
from pipelines.visualize.explain.explained_clip import ExplainedClip

NUM_CURVES = 5
"""Classes whose confidence is drawn."""


@dataclass(frozen=True, slots=True, eq=False)
class PredictedClip:
    """A clip on the page: its frames, what was predicted of it, and its class where that is known."""

    frames: ClipFrames
    prediction: Prediction
    truth: str | None = None


@dataclass(frozen=True, slots=True)
class PageSection:
    """Clips of the page below one heading."""

    heading: str
    clips: Sequence[PredictedClip]


def page(model: AdaFocusPredictor, sections: Sequence[PageSection], title: str) -> str:
    """One HTML page; every clip has a slider over its frames. Without a title it is to be shown inside another page.

    Shows for every frame what the glancer sees, the policy's probabilities over the frame, the patch, and the running
    prediction. Names of files and classes are data, never markup.
    """
    data = {
        "title": title,
        "sections": [
            {"heading": section.heading, "clips": [_clip_data(model, clip) for clip in section.clips]}
            for section in sections
        ],
    }
    return embed("page.html", data)


def _clip_data(model: AdaFocusPredictor, clip: PredictedClip) -> dict[str, Any]:
    """A clip as the page's script reads it."""
    config, frames, prediction = model.config, clip.frames, clip.prediction
    explained = ExplainedClip.of_prediction(model, frames, prediction, clip.truth)
    size, side = config.model.glance_size, config.data.crop
    glances_TCHW = frames.glance_TCHW
    if size != side:
        glances_TCHW = F.interpolate(glances_TCHW, (size, size), mode="bilinear", antialias=True)
    steps, glances = len(frames.focus_TCHW), len(glances_TCHW)
    same_frames = size == side and frames.focus_TCHW is frames.glance_TCHW
    count = min(NUM_CURVES, len(prediction.class_names))
    after_TK = explained.probability_TK
    classes = after_TK.max(0).values.topk(count).indices.tolist()
    classes.sort(key=lambda k: -float(after_TK[-1, k]))
    return {
        "title": explained.title,
        "truth": explained.truth,
        "count": prediction.source.num_frames,
        "fps": prediction.source.fps,
        "side": side,
        "patch": explained.patch_size,
        "glanceSize": size,
        "index": frames.index_T.tolist(),
        "shown": [explained.shown(step) for step in range(steps)],
        "boxes": [box and [round(value, 1) for value in box] for box in map(explained.box, range(steps))],
        "looked": [explained.looked(step) for step in range(steps)],
        "frames": [_jpeg(frame) for frame in frames.focus_TCHW],
        "glances": None if same_frames else [_jpeg(frame) for frame in glances_TCHW],
        "glanceOf": [step * glances // steps for step in range(steps)],
        "patches": [
            _jpeg(cut_patch(frame, explained.shown(step), explained.patch_size))
            for step, frame in enumerate(frames.focus_TCHW)
        ],
        "maps": None if prediction.map_Skk is None else [_rounded(each) for each in prediction.map_Skk],
        "chose": model.patches == "policy",
        "classes": [prediction.class_names[k] for k in classes],
        "curves": _rounded(after_TK[:, classes].T),
        "best": [{"name": name, "p": round(p, 4)} for name, p in explained.likeliest],
        "gflops": round(prediction.gflops["total"], 3),
        "parts": {part: value for part, value in prediction.gflops.items() if part != "total" and value},
        "ms": {part: round(value, 1) for part, value in prediction.times_ms.items()},
    }


def _rounded(values: Tensor) -> list[list[float]]:
    return [[round(value, 4) for value in row] for row in values.tolist()]


def _jpeg(frame_CHW: Tensor) -> str:
    """A frame as a data URL."""
    buffer = io.BytesIO()
    Image.fromarray(frame_CHW.permute(1, 2, 0).contiguous().numpy()).save(buffer, "JPEG", quality=88, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
