"""Pictures for the dashboard: where the model looks."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from adafocus import checkpoint
from adafocus.clips import evaluation_split
from adafocus.config import from_flat
from adafocus.loader import Batch, ClipLoader
from adafocus.models.adafocus import AdaFocus

GREEN, RED, WHITE = (60, 220, 60), (255, 80, 80), (235, 235, 235)
CELL = 160
"""Side in pixels of a drawn frame."""


@torch.inference_mode()
def patch_strips(model: AdaFocus, batch: Batch, class_names: tuple[str, ...], path: Path, clips: int = 6) -> None:
    """Draw a PNG: per clip one row of focus frames with the patch as a box, and below it what the focuser sees.

    The line above a row names the clip, its class and the prediction; under each frame stands the running prediction.
    """
    model.eval()
    output = model(batch.glance_BTCHW, batch.focus_BTCHW)
    probability_BTK = output.logits_BTK.softmax(-1)
    shown, frames = min(clips, len(batch.clip_ids)), batch.focus_BTCHW.shape[1]
    header, footer, gap = 20, 18, 10
    patch_side = CELL * model.config.model.patch_size // model.config.data.crop
    row_height = header + CELL + patch_side + footer + gap
    canvas = Image.new("RGB", (frames * (CELL + 4), shown * row_height), (24, 24, 24))
    draw = ImageDraw.Draw(canvas)
    for row in range(shown):
        top = row * row_height
        label = int(batch.labels_BL[row, 0])
        guess = int(probability_BTK[row, -1].argmax())
        colour = GREEN if guess == label else RED
        title = f"{batch.clip_ids[row]}   class: {class_names[label]}   predicted: {class_names[guess]}"
        draw.text((4, top + 4), title, fill=colour)
        for step in range(frames):
            left = step * (CELL + 4)
            corner = output.corners_BT2[row, step].tolist()
            _draw_frame(canvas, draw, batch.focus_BTCHW[row, step], corner, model, (left, top + header))
            best = int(probability_BTK[row, step].argmax())
            text = f"{class_names[best]} {probability_BTK[row, step, best]:.2f}"
            draw.text((left + 2, top + header + CELL + patch_side + 2), text[:26], fill=WHITE)
    canvas.save(path)


def _draw_frame(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    frame_CHW: Tensor,
    corner: list[int],
    model: AdaFocus,
    place: tuple[int, int],
) -> None:
    """One frame with its box, and its patch below."""
    side, patch = model.config.data.crop, model.config.model.patch_size
    left, top = place
    image = Image.fromarray(frame_CHW.permute(1, 2, 0).cpu().numpy())
    canvas.paste(image.resize((CELL, CELL)), (left, top))
    row, column = corner
    box = [left + column * CELL // side, top + row * CELL // side]
    box += [box[0] + patch * CELL // side, box[1] + patch * CELL // side]
    draw.rectangle(box, outline=GREEN, width=2)
    cut = image.crop((column, row, column + patch, row + patch))
    width = CELL * patch // side
    canvas.paste(cut.resize((width, width)), (left + (CELL - width) // 2, top + CELL))


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
    patch_strips(model, next(iter(loader)), meta.class_names, path, clips)
