"""A video with the prediction drawn on it: the patch in every frame, a graph of the classes' confidence below."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance

from adafocus.data.transforms import evaluation_view
from adafocus.inference.prediction import ClipFrames, Prediction
from adafocus.inference.predictor import AdaFocusPredictor
from pipelines.visualize.drawing import (
    BACKGROUND,
    GREEN,
    GREY,
    PANEL,
    WHITE,
    draw_box,
    draw_object,
    font,
    greyed,
    shorten,
)
from preprocessing.media.frames import open_frames

CURVE_COLOURS = (GREEN, (255, 176, 66), (98, 164, 255))
"""Of the three likeliest classes."""
WIDTH, GRAPH_HEIGHT = 640, 168
"""Least width of the drawn video and height of the graph below it, in pixels."""
LONGEST_SIDE = 2160
"""Pixels of the longer side of a drawn frame at most: some videos are a hundred times as high as wide."""


def explained_frames(model: AdaFocusPredictor, clip: ClipFrames, prediction: Prediction) -> Iterator[np.ndarray]:
    """Every frame of the video, uint8 (H, W, 3), H and W even: the latest patch as a box, the object's own box thin
    where it is known, what lies outside the networks' view dark, the view grey where the latest frame was skipped, the
    confidence of the likeliest classes below. One frame at a time is in memory."""
    path = Path(clip.name)
    with open_frames(path, model.spec) as stream:
        painter: _FramePainter | None = None
        for number, jpeg in enumerate(stream):
            image = Image.open(io.BytesIO(jpeg))
            if painter is None:
                painter = _FramePainter(model, clip, prediction, image.size)
            yield painter.paint(image, number)


class _FramePainter:
    """Draws the frames of one video; holds what is the same in all of them."""

    def __init__(
        self, model: AdaFocusPredictor, clip: ClipFrames, prediction: Prediction, size: tuple[int, int]
    ) -> None:
        """`size`: width and height of the video's frames."""
        self._prediction = prediction
        order = np.argsort(clip.index_T, kind="stable")
        self._index_T, self._corners_T2 = clip.index_T[order], prediction.corners_T2[torch.from_numpy(order)]
        boxes_T4 = clip.boxes_T4
        self._boxes_T4 = None if boxes_T4 is None else boxes_T4[torch.from_numpy(order)]
        looks_T = prediction.looks_T
        self._looked_T = np.ones(len(order), bool) if looks_T is None else looks_T.numpy()[order]
        sizes_T2 = prediction.sizes_T2
        patch = model.config.model.patch_size
        sizes_T2 = torch.full_like(prediction.corners_T2, patch) if sizes_T2 is None else sizes_T2
        self._sizes_T2 = sizes_T2[torch.from_numpy(order)]
        in_time = bool((order[1:] > order[:-1]).all())
        # Frames that were seen in another order than that of time leave no course: then all of it is the end's.
        after_TK = prediction.after_frames
        self._probability_TK = after_TK if in_time else after_TK[-1:].expand(len(order), -1)
        data = model.config.data
        self._view = evaluation_view(size[1], size[0], data.resize, data.crop)
        self._crop = data.crop
        self._scale = min(max(1.0, WIDTH / size[0]), LONGEST_SIDE / max(size))
        self._size = (_even(size[0] * self._scale), _even(size[1] * self._scale))
        self._width = max(self._size[0], WIDTH)
        self._left = (self._width - self._size[0]) // 2
        count = min(len(CURVE_COLOURS), len(prediction.class_names))
        self._classes = prediction.probability.topk(count, -1).indices[-1].tolist()
        self._area = (52, 14, self._width - 16, GRAPH_HEIGHT - 62)
        self._panel = self._draw_panel()

    def _x(self, number: float) -> float:
        """Where a frame's number lies in the graph."""
        left, _, right, _ = self._area
        return left + (right - left) * number / max(self._prediction.source.num_frames - 1, 1)

    def _y(self, p: float) -> float:
        """Where a probability lies in the graph."""
        _, top, _, bottom = self._area
        return bottom - (bottom - top) * p

    def _draw_panel(self) -> Image.Image:
        """The graph without curves: its axis, and a mark at every frame that the networks see."""
        panel = Image.new("RGB", (self._width, GRAPH_HEIGHT), BACKGROUND)
        draw = ImageDraw.Draw(panel)
        for p in (0.0, 0.5, 1.0):
            draw.line((self._area[0], self._y(p), self._area[2], self._y(p)), fill=PANEL)
            draw.text((self._area[0] - 6, self._y(p)), f"{p:.0%}", fill=GREY, font=font(11), anchor="rm")
        for number in self._index_T:
            draw.line((self._x(number), self._area[3], self._x(number), self._area[3] + 5), fill=GREY)
        return panel

    def paint(self, image: Image.Image, number: int) -> np.ndarray:
        """The frame with this number, with the latest patch and the curves up to it."""
        steps = int((self._index_T <= number).sum())
        frame = image.convert("RGB").resize(self._size, Image.Resampling.BICUBIC)
        canvas = Image.new("RGB", (self._width, self._size[1] + GRAPH_HEIGHT), BACKGROUND)
        inside = self._on_screen(self._view.source_box(0, 0, self._crop))
        looked = not steps or bool(self._looked_T[steps - 1])
        seen = frame.crop(inside) if looked else greyed(frame.crop(inside))
        frame = ImageEnhance.Brightness(frame).enhance(0.4)
        frame.paste(seen, inside[:2])
        canvas.paste(frame, (self._left, 0))
        draw = ImageDraw.Draw(canvas)
        if steps and self._boxes_T4 is not None and not self._boxes_T4[steps - 1].isnan().any():
            top, left, bottom, right = self._view.source_part(self._boxes_T4[steps - 1].tolist())
            draw_object(draw, [value * self._scale for value in (left, top, right, bottom)])
        if steps and looked:
            (row, column), (height, width) = self._corners_T2[steps - 1].tolist(), self._sizes_T2[steps - 1].tolist()
            shown = self._view.source_part((row, column, row + height, column + width))
            left, top, right, bottom = self._on_screen(shown)
            draw_box(draw, (self._left + left, top, self._left + right, bottom))
        canvas.paste(self._panel, (0, self._size[1]))
        self._draw_curves(draw, steps, number)
        return np.asarray(canvas)

    def _on_screen(self, box: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) in the drawn frame of (top, left, bottom, right) in the video's."""
        top, left, bottom, right = (round(value * self._scale) for value in box)
        (left, right), (top, bottom) = (
            np.clip((left, right), 0, self._size[0]),
            np.clip((top, bottom), 0, self._size[1]),
        )
        return int(left), int(top), int(right), int(bottom)

    def _draw_curves(self, draw: ImageDraw.ImageDraw, steps: int, number: int) -> None:
        """Draw the classes' confidence after so many steps, up to this frame, and their names with its value."""
        base, probability = self._size[1], self._probability_TK
        draw.line((self._x(number), base + self._area[1], self._x(number), base + self._area[3]), fill=GREY)
        slot = (self._width - 32) // len(self._classes)
        for rank, k in reversed(list(enumerate(self._classes))):
            points = []
            for step in range(steps):
                end = self._index_T[step + 1] if step + 1 < steps else number
                points += [
                    (self._x(x), base + self._y(float(probability[step, k]))) for x in (self._index_T[step], end)
                ]
            if points:
                draw.line(points, fill=CURVE_COLOURS[rank], width=3 if rank == 0 else 2)
            p = f"{float(probability[steps - 1, k]):.0%}" if steps else ""
            left, top = 16 + rank * slot, base + GRAPH_HEIGHT - 34
            draw.rounded_rectangle((left, top + 2, left + 10, top + 14), 3, fill=CURVE_COLOURS[rank])
            name = shorten(self._prediction.class_names[k], slot - 90, font(14))
            draw.text((left + 18, top), name, fill=WHITE, font=font(14))
            draw.text((left + slot - 26, top), p, fill=WHITE, font=font(14, bold=True), anchor="ra")


def _even(length: float) -> int:
    """The even number of pixels nearest below, as video encoders want it, and one pair of them at least."""
    return max(round(length) // 2 * 2, 2)
