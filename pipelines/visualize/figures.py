"""Pictures of where a model looks: clips and predictions in, strips of frames out (PNG), for explaining and MLflow."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from adafocus import checkpoint
from adafocus.config.schema import from_flat
from adafocus.data.clip_table import evaluation_split
from adafocus.data.loader import ClipLoader

BACK, PANEL, DIM, WHITE = (17, 19, 24), (30, 33, 41), (140, 147, 160), (236, 239, 244)
GREEN, RED = (64, 222, 106), (255, 92, 92)
CELL, GAP, PER_ROW = 168, 8, 8
"""Side of a drawn frame and room between two in pixels; frames side by side, before a strip breaks."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A clip, where the model looked in it, and what it said after each frame. T frames, K classes, P patch side."""

    title: str
    class_names: tuple[str, ...]
    frames_TCHW: Tensor
    """uint8, what patches are cut from."""
    index_T: np.ndarray | None
    """Number of each frame in its video, where that is known."""
    corners_T2: Tensor
    probability_TK: Tensor
    patch_size: int
    truth: str | None = None
    """The clip's class, where that is known."""

    @property
    def guesses(self) -> list[tuple[str, float]]:
        """Likeliest class and its probability after each frame."""
        best = self.probability_TK.max(-1)
        return [(self.class_names[k], p) for k, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]

    def colour(self, name: str) -> tuple[int, int, int]:
        """Green and red for right and wrong, white where nobody knows."""
        return WHITE if self.truth is None else GREEN if name == self.truth else RED


@functools.cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and knows more scripts than Pillow's own font."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def fit(text: str, width: int, face: ImageFont.FreeTypeFont) -> str:
    """`text`, cut so that it is no wider than `width` pixels."""
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def picture(frame_CHW: Tensor, side: int) -> Image.Image:
    """A frame as a picture of `side` pixels; small ones keep their pixels visible."""
    image = Image.fromarray(frame_CHW.permute(1, 2, 0).contiguous().cpu().numpy())
    grown = side >= 2 * image.width
    return image.resize((side, side), Image.Resampling.NEAREST if grown else Image.Resampling.LANCZOS)


def cut(frame_CHW: Tensor, corner: Sequence[int], size: int) -> Tensor:
    """The patch of a frame."""
    row, column = corner
    return frame_CHW[:, row : row + size, column : column + size]


def box_on(draw: ImageDraw.ImageDraw, box: Sequence[float], colour: tuple[int, int, int] = GREEN) -> None:
    """A frame's box (left, top, right, bottom), 2 pixels wide, with a dark rim that shows on any ground."""
    left, top, right, bottom = (round(value) for value in box)
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=(0, 0, 0), width=4)
    draw.rectangle((left, top, right, bottom), outline=colour, width=2)


def strip(seen: Seen) -> Image.Image:
    """A clip: its frames with the patch as a green box, below each the patch as the focuser sees it, the running
    prediction and a bar of its confidence."""
    frames = len(seen.frames_TCHW)
    columns = min(frames, PER_ROW)
    head, foot = 44, 46
    row_height = 2 * CELL + 4 + foot + GAP
    rows = -(-frames // columns)
    canvas = Image.new("RGB", (columns * (CELL + GAP) + GAP, head + rows * row_height + GAP), BACK)
    draw = ImageDraw.Draw(canvas)
    name, p = seen.guesses[-1]
    said = f"{name}  {p:.0%}" + ("" if seen.truth in (None, name) else f"   (it is {seen.truth})")
    face = font(17, bold=True)
    draw.text((GAP, 12), said := fit(said, canvas.width - 2 * GAP, face), fill=seen.colour(name), font=face)
    left = GAP + face.getlength(said) + 18
    room = int(canvas.width - GAP - left)
    if room > 60:
        draw.text((left, 15), fit(seen.title, room, font(13)), fill=DIM, font=font(13))
    for step in range(frames):
        place = (GAP + step % columns * (CELL + GAP), head + step // columns * row_height)
        _cell(canvas, draw, seen, step, place)
    return canvas


def _cell(canvas: Image.Image, draw: ImageDraw.ImageDraw, seen: Seen, step: int, place: tuple[int, int]) -> None:
    left, top = place
    frame_CHW, corner = seen.frames_TCHW[step], seen.corners_T2[step].tolist()
    scale = CELL / frame_CHW.shape[-1]
    canvas.paste(picture(frame_CHW, CELL), (left, top))
    row, column = (value * scale for value in corner)
    side = seen.patch_size * scale
    box_on(draw, (left + column, top + row, left + column + side - 1, top + row + side - 1))
    if seen.index_T is not None:
        label = f"{seen.index_T[step]}"
        width = font(11).getlength(label)
        draw.rectangle((left, top, left + width + 8, top + 16), fill=BACK)
        draw.text((left + 4, top + 2), label, fill=DIM, font=font(11))
    canvas.paste(picture(cut(frame_CHW, corner, seen.patch_size), CELL), (left, top + CELL + 4))
    name, p = seen.guesses[step]
    below, face, percent = top + 2 * CELL + 10, font(12), f"{p:.0%}"
    room = CELL - face.getlength(percent) - 8
    draw.text((left, below), fit(name, int(room), face), fill=seen.colour(name), font=face)
    draw.text((left + CELL, below), percent, fill=WHITE, font=face, anchor="ra")
    draw.rounded_rectangle((left, below + 20, left + CELL - 1, below + 25), 3, fill=PANEL)
    draw.rounded_rectangle((left, below + 20, left + max(p * CELL, 6) - 1, below + 25), 3, fill=seen.colour(name))


def stack(strips: Sequence[Image.Image]) -> Image.Image:
    """Strips below each other."""
    width, height = max(image.width for image in strips), sum(image.height for image in strips)
    canvas = Image.new("RGB", (width, height), BACK)
    top = 0
    for image in strips:
        canvas.paste(image, (0, top))
        top += image.height
    return canvas


@torch.no_grad()  # not inference mode, which the loader's threads would not share
def draw_strips(folder: Path, shards: str, path: Path, clips: int = 6) -> None:
    """Draw where a finished model looks in clips spread over the evaluation split."""
    model, meta = checkpoint.load_model(folder)
    config = from_flat(meta.config)
    loader = ClipLoader(
        shards,
        evaluation_split(shards),
        config.data,
        batch_size=clips,
        train=False,
        limit=clips,
        independent_focus=config.model.family == "trimmed",
    )
    batch = next(iter(loader))
    output = model(batch.glance_BTCHW, batch.focus_BTCHW)
    strips = []
    for row, clip_id in enumerate(batch.clip_ids):
        seen = Seen(
            title=clip_id,
            class_names=meta.class_names,
            frames_TCHW=batch.focus_BTCHW[row],
            index_T=None,
            corners_T2=output.corners_BT2[row],
            probability_TK=output.logits_BTK[row].softmax(-1),
            patch_size=config.model.patch_size,
            truth=meta.class_names[int(batch.labels_BL[row, 0])],
        )
        strips.append(strip(seen))
    stack(strips).save(path)
