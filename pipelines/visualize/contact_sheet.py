"""A contact sheet: one picture of sampled frames. Goes in: an index and its shards; comes out: a PNG file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageDraw

from preprocessing.schema import USABLE, UserError
from preprocessing.shards.archive import frame_offsets
from preprocessing.shards.index import Index
from preprocessing.shards.storage import Store

_TEXT_PX = 14


def contact_sheet(
    store: Store, index: Index, path: Path, *, clips: int = 8, frames: int = 6, height_px: int = 120, seed: int = 0
) -> None:
    """Write a PNG with one row per clip: `frames` evenly spread frames, below them class, id and number of frames.

    `seed` decides which clips are drawn. Raises UserError if no clip of the index has frames.
    """
    usable = np.flatnonzero(pc.is_in(index.table["status"], pa.array(USABLE)).to_numpy(zero_copy_only=False))
    if not len(usable):
        raise UserError(f"{store.shown}: no clip has frames to show")
    rng = np.random.default_rng(seed)
    sampled = np.sort(rng.choice(usable, size=min(clips, len(usable)), replace=False))
    strips = [_strip(store, index, row, frames, height_px) for row in index.table.take(sampled).to_pylist()]
    sheet = Image.new("RGB", (max(strip.width for strip in strips), sum(strip.height for strip in strips)), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "PNG")


def _strip(store: Store, index: Index, row: dict[str, object], frames: int, height_px: int) -> Image.Image:
    sizes, first, labels = row["frame_sizes"], row["first_offset"], row["labels"]
    assert isinstance(sizes, list) and isinstance(first, int) and isinstance(labels, list)
    offsets = frame_offsets(first, sizes)
    shown = np.linspace(0, len(sizes) - 1, frames).round().astype(int)
    with store.open(str(row["shard"])) as file:
        images = [Image.open(io.BytesIO(file.read_at(sizes[frame], offsets[frame]))) for frame in shown]
    thumbs = [image.resize((max(1, image.width * height_px // image.height), height_px)) for image in images]
    strip = Image.new("RGB", (sum(thumb.width + 2 for thumb in thumbs), height_px + _TEXT_PX + 2), "white")
    left = 0
    for thumb in thumbs:
        strip.paste(thumb, (left, 0))
        left += thumb.width + 2
    names = ", ".join(index.info.class_names[label] for label in labels)
    text = f"{names} | {row['clip_id']} | {row['num_frames']} frames | {row['status']}"
    ImageDraw.Draw(strip).text((2, height_px), text.encode("ascii", "replace").decode(), fill="black")
    return strip
