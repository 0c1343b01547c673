"""Drawing on Pillow images: colours, fonts, frames, patches and boxes, shared by strips and videos."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageFont
from torch import Tensor

from adafocus.models.crop import crop_between, crop_resized

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

BACKGROUND, PANEL, GREY, WHITE = (17, 19, 24), (30, 33, 41), (140, 147, 160), (236, 239, 244)
GREEN, RED, YELLOW = (64, 222, 106), (255, 92, 92), (255, 221, 87)


@functools.cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and knows more scripts than Pillow's own font."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def shorten(text: str, width: int, face: ImageFont.FreeTypeFont) -> str:
    """`text`, cut so that it is no wider than `width` pixels."""
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def frame_image(frame_CHW: Tensor, side: int) -> Image.Image:
    """A frame as an image of `side` x `side` pixels; a small frame is enlarged without smoothing."""
    image = Image.fromarray(frame_CHW.permute(1, 2, 0).contiguous().cpu().numpy())
    enlarged = side >= 2 * image.width
    return image.resize((side, side), Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS)


def greyed(image: Image.Image) -> Image.Image:
    """The same image in dark grey: a frame that the focuser did not look at."""
    return ImageEnhance.Brightness(image.convert("L").convert("RGB")).enhance(0.5)


def cut_patch(frame_CHW: Tensor, box: Sequence[float], size: int) -> Tensor:
    """The patch of `size` x `size` pixels that shows a box (row, column, height, width) of a frame, between pixels if
    need be."""
    box_14 = torch.tensor([box], dtype=torch.float32)
    if box[2:] == (size, size):
        patch_CPP = crop_between(frame_CHW[None], box_14[:, :2], size)[0]
    else:
        patch_CPP = crop_resized(frame_CHW[None].float(), box_14, size)[0]
    return patch_CPP.round().to(frame_CHW.dtype)


def draw_box(draw: ImageDraw.ImageDraw, box: Sequence[float], colour: Colour = GREEN) -> None:
    """Draw the outline of a box (left, top, right, bottom), 2 pixels wide, with a dark rim to stand out anywhere."""
    left, top, right, bottom = (round(value) for value in box)
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=(0, 0, 0), width=4)
    draw.rectangle((left, top, right, bottom), outline=colour, width=2)


def draw_object(draw: ImageDraw.ImageDraw, box: Sequence[float]) -> None:
    """Draw the thin outline of an object's own box (left, top, right, bottom)."""
    left, top, right, bottom = (round(value) for value in box)
    if right > left and bottom > top:
        draw.rectangle((left, top, right, bottom), outline=YELLOW, width=1)
