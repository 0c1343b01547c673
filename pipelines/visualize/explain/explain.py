"""Writes a prediction as pictures: OUT.png, a strip; OUT.mp4, the whole video; OUT.html, a page with a slider."""

from __future__ import annotations

from pathlib import Path

from adafocus.inference.prediction import ClipFrames, Prediction
from adafocus.inference.predictor import AdaFocusPredictor
from pipelines.visualize.explain.explain_page import PageSection, PredictedClip, page
from pipelines.visualize.explain.explain_video import explained_frames
from pipelines.visualize.explain.explained_clip import ExplainedClip
from pipelines.visualize.patch_strips import draw_strip
from preprocessing.ffmpeg.encode import encode_video


def explain(model: AdaFocusPredictor, clip: ClipFrames, prediction: Prediction, out: Path) -> list[Path]:
    """Write OUT.png, OUT.mp4 and OUT.html of a video that was read from a file or a folder; their paths."""
    out.parent.mkdir(parents=True, exist_ok=True)
    png, mp4, html = (out.with_name(f"{out.name}.{kind}") for kind in ("png", "mp4", "html"))
    explained = ExplainedClip.of_prediction(model, clip, prediction)
    draw_strip(explained).save(png)
    encode_video(mp4, explained_frames(model, clip, prediction), prediction.source.fps or 25.0, crf=20)
    title = f"{explained.title}: {explained.likeliest[-1][0]}"
    html.write_text(page(model, [PageSection("", [PredictedClip(clip, prediction)])], title), "utf-8")
    return [png, mp4, html]
