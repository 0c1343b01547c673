"""One prediction as pictures: OUT.png, a strip; OUT.mp4, the whole video; OUT.html, a page to scrub through."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from adafocus.data.transforms import evaluation_view
from adafocus.inference.predictor import AdaFocusPredictor, ClipFrames, Prediction
from pipelines.visualize.explain_page import page
from pipelines.visualize.figures import BACK, DIM, GREEN, PANEL, WHITE, Seen, box_on, fit, font, strip
from preprocessing.media.ffmpeg import encode_video, extract_frames
from preprocessing.media.frame_folder import FrameFolder

LINES = (GREEN, (255, 176, 66), (98, 164, 255))
"""Of the three likeliest classes."""
WIDTH, GRAPH = 640, 168
"""Least width of the drawn video and height of the graph below it, in pixels."""


def seen_of(model: AdaFocusPredictor, clip: ClipFrames, found: Prediction, truth: str | None = None) -> Seen:
    """What the pictures show of a prediction."""
    return Seen(
        title=Path(clip.name).name,
        class_names=found.class_names,
        frames_TCHW=clip.focus_TCHW,
        index_T=clip.index_T,
        corners_T2=found.corners_T2,
        probability_TK=found.probability,
        patch_size=model.config.model.patch_size,
        truth=truth,
    )


def explain(model: AdaFocusPredictor, clip: ClipFrames, found: Prediction, out: Path) -> list[Path]:
    """Write OUT.png, OUT.mp4 and OUT.html of a video that was read from a file or a folder; their paths."""
    out.parent.mkdir(parents=True, exist_ok=True)
    png, mp4, html = (out.with_name(f"{out.name}.{kind}") for kind in ("png", "mp4", "html"))
    seen = seen_of(model, clip, found)
    strip(seen).save(png)
    encode_video(mp4, drawn_frames(model, clip, found), found.source.fps or 25.0, crf=20)
    html.write_text(page(model, [("", [(seen, clip, found)])], f"{seen.title}: {seen.guesses[-1][0]}"))
    return [png, mp4, html]


def drawn_frames(model: AdaFocusPredictor, clip: ClipFrames, found: Prediction) -> Iterator[np.ndarray]:
    """Every frame of the video, uint8 (H, W, 3), H and W even: the latest patch as a box, what lies outside the
    networks' view dark, the confidence of the likeliest classes below. One frame at a time is in memory."""
    path = Path(clip.name)
    with FrameFolder(path, model.spec) if path.is_dir() else extract_frames(path, model.spec) as stream:
        graph: _Graph | None = None
        for number, jpeg in enumerate(stream):
            image = Image.open(io.BytesIO(jpeg))
            if graph is None:
                graph = _Graph(model, clip, found, image.size)
            yield graph.draw(image, number)


class _Graph:
    """What stays the same from frame to frame."""

    def __init__(self, model: AdaFocusPredictor, clip: ClipFrames, found: Prediction, size: tuple[int, int]) -> None:
        self._clip, self._found = clip, found
        data = model.config.data
        self._view = evaluation_view(size[1], size[0], data.resize, data.crop)
        self._crop, self._patch = data.crop, model.config.model.patch_size
        self._scale = max(1.0, WIDTH / size[0])
        self._size = (round(size[0] * self._scale) // 2 * 2, round(size[1] * self._scale) // 2 * 2)
        self._curves = found.probability.topk(min(3, len(found.class_names)), -1).indices[-1].tolist()
        self._area = (52, 14, self._size[0] - 16, GRAPH - 62)
        self._panel = self._draw_panel()

    def _x(self, number: float) -> float:
        left, _, right, _ = self._area
        return left + (right - left) * number / max(self._found.source.num_frames - 1, 1)

    def _y(self, p: float) -> float:
        _, top, _, bottom = self._area
        return bottom - (bottom - top) * p

    def _draw_panel(self) -> Image.Image:
        panel = Image.new("RGB", (self._size[0], GRAPH), BACK)
        draw = ImageDraw.Draw(panel)
        for p in (0.0, 0.5, 1.0):
            draw.line((self._area[0], self._y(p), self._area[2], self._y(p)), fill=PANEL)
            draw.text((self._area[0] - 6, self._y(p)), f"{p:.0%}", fill=DIM, font=font(11), anchor="rm")
        for number in self._clip.index_T:
            draw.line((self._x(number), self._area[3], self._x(number), self._area[3] + 5), fill=DIM)
        return panel

    def draw(self, image: Image.Image, number: int) -> np.ndarray:
        """One frame with all that is known by then."""
        seen = int((self._clip.index_T <= number).sum())
        frame = image.convert("RGB").resize(self._size, Image.Resampling.BICUBIC)
        canvas = Image.new("RGB", (self._size[0], self._size[1] + GRAPH), BACK)
        inside = self._on_screen(self._view.source_box(0, 0, self._crop))
        canvas.paste(ImageEnhance.Brightness(frame).enhance(0.4), (0, 0))
        canvas.paste(frame.crop(inside), inside[:2])
        draw = ImageDraw.Draw(canvas)
        if seen:
            row, column = self._found.corners_T2[seen - 1].tolist()
            box_on(draw, self._on_screen(self._view.source_box(row, column, self._patch)))
        canvas.paste(self._panel, (0, self._size[1]))
        self._draw_curves(draw, seen, number)
        return np.asarray(canvas)

    def _on_screen(self, box: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
        top, left, bottom, right = (round(value * self._scale) for value in box)
        return max(left, 0), max(top, 0), min(right, self._size[0]), min(bottom, self._size[1])

    def _draw_curves(self, draw: ImageDraw.ImageDraw, seen: int, number: int) -> None:
        base, probability = self._size[1], self._found.probability
        draw.line((self._x(number), base + self._area[1], self._x(number), base + self._area[3]), fill=DIM)
        slot = (self._size[0] - 32) // len(self._curves)
        for rank, k in reversed(list(enumerate(self._curves))):
            points = []
            for step in range(seen):
                end = self._clip.index_T[step + 1] if step + 1 < seen else number
                points += [
                    (self._x(x), base + self._y(float(probability[step, k]))) for x in (self._clip.index_T[step], end)
                ]
            if points:
                draw.line(points, fill=LINES[rank], width=3 if rank == 0 else 2)
            p = f"{float(probability[seen - 1, k]):.0%}" if seen else ""
            left, top = 16 + rank * slot, base + GRAPH - 34
            draw.rounded_rectangle((left, top + 2, left + 10, top + 14), 3, fill=LINES[rank])
            name = fit(self._found.class_names[k], slot - 90, font(14))
            draw.text((left + 18, top), name, fill=WHITE, font=font(14))
            draw.text((left + slot - 26, top), p, fill=WHITE, font=font(14, bold=True), anchor="ra")
