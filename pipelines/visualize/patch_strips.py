"""Patch strips: a clip's frames side by side with the patch in each, the running prediction below, as one image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from adafocus import checkpoint
from adafocus.config.overrides import from_flat
from adafocus.data.clip_table import evaluation_split
from adafocus.data.loader import ClipLoader
from adafocus.inference.prediction import exits_after
from pipelines.visualize.drawing import (
    BACKGROUND,
    GREY,
    PANEL,
    WHITE,
    cut_patch,
    draw_box,
    draw_object,
    font,
    frame_image,
    greyed,
    shorten,
)
from pipelines.visualize.explain.explained_clip import ExplainedClip

CELL, GAP, PER_ROW = 168, 8, 8
"""Side of a drawn frame and the space between two in pixels; frames in one row of a strip."""


def draw_strip(clip: ExplainedClip) -> Image.Image:
    """A clip: its frames with the patch as a green box, below each the patch as the focuser sees it, the running
    prediction and a bar of its confidence. Frames that were skipped are grey; an object's own box, where it is known,
    is thin and yellow."""
    frames = len(clip.frames_TCHW)
    columns = min(frames, PER_ROW)
    head, foot = 44, 46
    row_height = 2 * CELL + 4 + foot + GAP
    rows = -(-frames // columns)
    canvas = Image.new("RGB", (columns * (CELL + GAP) + GAP, head + rows * row_height + GAP), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    name, p = clip.likeliest[-1]
    heading = f"{name}  {p:.0%}" + ("" if clip.truth in (None, name) else f"   (it is {clip.truth})")
    face = font(17, bold=True)
    heading = shorten(heading, canvas.width - 2 * GAP, face)
    draw.text((GAP, 12), heading, fill=clip.colour(name), font=face)
    left = GAP + face.getlength(heading) + 18
    width = int(canvas.width - GAP - left)
    if width > 60:
        draw.text((left, 15), shorten(clip.title, width, font(13)), fill=GREY, font=font(13))
    for step in range(frames):
        position = (GAP + step % columns * (CELL + GAP), head + step // columns * row_height)
        _draw_frame(canvas, draw, clip, step, position)
    return canvas


def _draw_frame(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, clip: ExplainedClip, step: int, position: tuple[int, int]
) -> None:
    """Draw a frame with its box, its patch, and the prediction after it, at `position` (left, top)."""
    left, top = position
    frame_CHW, shown = clip.frames_TCHW[step], clip.shown(step)
    scale = CELL / frame_CHW.shape[-1]
    looked = clip.looked(step)
    image = frame_image(frame_CHW, CELL)
    image = image if looked else greyed(image)
    if box := clip.box(step):
        upper, start, lower, end = (value * scale for value in box)
        draw_object(ImageDraw.Draw(image), (start, upper, end - 1, lower - 1))
    canvas.paste(image, (left, top))
    if looked:
        row, column, height, width = (value * scale for value in shown)
        draw_box(draw, (left + column, top + row, left + column + width - 1, top + row + height - 1))
    if clip.index_T is not None:
        label = f"{clip.index_T[step]}"
        width = font(11).getlength(label)
        draw.rectangle((left, top, left + width + 8, top + 16), fill=BACKGROUND)
        draw.text((left + 4, top + 2), label, fill=GREY, font=font(11))
    if looked:
        canvas.paste(frame_image(cut_patch(frame_CHW, shown, clip.patch_size), CELL), (left, top + CELL + 4))
    else:
        draw.text((left + CELL // 2, top + CELL + CELL // 2), "skipped", fill=GREY, font=font(13), anchor="mm")
    name, p = clip.likeliest[step]
    below, face, percent = top + 2 * CELL + 10, font(12), f"{p:.0%}"
    width = CELL - face.getlength(percent) - 8
    draw.text((left, below), shorten(name, int(width), face), fill=clip.colour(name), font=face)
    draw.text((left + CELL, below), percent, fill=WHITE, font=face, anchor="ra")
    draw.rounded_rectangle((left, below + 20, left + CELL - 1, below + 25), 3, fill=PANEL)
    draw.rounded_rectangle((left, below + 20, left + max(p * CELL, 6) - 1, below + 25), 3, fill=clip.colour(name))


def stack(strips: Sequence[Image.Image]) -> Image.Image:
    """One image with the strips below each other."""
    width, height = max(image.width for image in strips), sum(image.height for image in strips)
    canvas = Image.new("RGB", (width, height), BACKGROUND)
    top = 0
    for image in strips:
        canvas.paste(image, (0, top))
        top += image.height
    return canvas


@torch.no_grad()  # not inference mode, which the loader's threads would not share
def save_strips(folder: Path, shards: str, path: Path, clips: int = 6) -> None:
    """Write the strips of a checkpoint's predictions for clips spread over the evaluation split."""
    model, meta = checkpoint.load_model(folder)
    config = from_flat(meta.config)
    loader = ClipLoader(
        shards,
        evaluation_split(shards),
        config.data,
        batch_size=clips,
        train=False,
        limit=clips,
    )
    batch = next(iter(loader))
    output = model(batch.glance_BTCHW, batch.focus_BTCHW)
    places_BF, sizes_BS2 = output.choice.places_BF, output.choice.sizes_BS2
    shown = [slice(None)] * len(batch.clip_ids) if places_BF is None else list(places_BF)
    exits = exits_after(model.exit_frames, output.corners_BT2.shape[1])
    strips = []
    for row, clip_id in enumerate(batch.clip_ids):
        clip = ExplainedClip(
            title=clip_id,
            class_names=meta.class_names,
            frames_TCHW=batch.focus_BTCHW[row][shown[row]],
            index_T=None,
            corners_T2=output.corners_BT2[row],
            probability_TK=output.logits_BTK[row, exits].softmax(-1),
            patch_size=config.model.patch_size,
            truth=meta.class_names[int(batch.labels_BL[row, 0])],
            looks_T=None if output.choice.looks_BT is None else output.choice.looks_BT[row],
            sizes_T2=None if sizes_BS2 is None else sizes_BS2[row].expand(output.corners_BT2.shape[1], 2),
            boxes_T4=None if batch.boxes_BT4 is None else batch.boxes_BT4[row][shown[row]],
        )
        strips.append(draw_strip(clip))
    stack(strips).save(path)
