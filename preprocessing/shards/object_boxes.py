"""Boxes of a clip's object for the frames that were packed: the clip and its extraction go in, fractions come out.

Fractions of a frame are the same before and after scaling, whatever the shape of its pixels; only the size of the
upright source has to be known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from preprocessing.media.extraction import Extraction
from preprocessing.schema import Clip, ExtractionSpec, SourceBox, UserError

Fractions = tuple[float, float, float, float]
"""(top, left, bottom, right) of a box, of the frame's height and width; NaN where there is no object."""

NO_OBJECT: Fractions = (math.nan, math.nan, math.nan, math.nan)


def check_boxes(clips: Sequence[Clip], spec: ExtractionSpec) -> None:
    """Raise UserError if the packed frames would not be the source's, whose numbers the boxes state."""
    boxes = next((clip.source_boxes for clip in clips if clip.source_boxes), None)
    if boxes and spec.fps is not None:
        raise UserError(
            f"{boxes[0].where}: boxes number the frames of the source, but --fps {spec.fps:g} makes others: leave "
            "--fps out, or boxes.csv away"
        )


def packed_boxes(clip: Clip, spec: ExtractionSpec, result: Extraction, num_frames: int) -> list[Fractions] | None:
    """One box for each packed frame; None where they are unknown.

    That is also where damage may have cost frames before others, so that their numbers are not the source's any more.
    Raises UserError, with file and line, for a box that no frame of the source can have.
    """
    if clip.source_boxes is None:
        return list(clip.boxes) if clip.boxes and len(clip.boxes) == num_frames else None
    if result.status != "ok":
        return None
    size = upright_size(result)
    is_whole = clip.end_s is None and num_frames != spec.max_frames
    return None if size is None else place_in_frames(clip.source_boxes, *size, num_frames, is_whole=is_whole)


def place_in_frames(
    boxes: Sequence[SourceBox], height: int, width: int, num_frames: int, *, is_whole: bool
) -> list[Fractions]:
    """One box for each frame of a source of that size. `is_whole`: there are no frames behind these.

    Raises UserError, with file and line, for a box of a frame behind them, or outside of the picture.
    """
    placed = [NO_OBJECT] * num_frames
    for box in boxes:
        if box.x >= width or box.y >= height or box.x + box.width <= 0 or box.y + box.height <= 0:
            raise UserError(
                f"{box.where}: the box lies outside of the picture, which has {width}x{height} pixels: boxes are in "
                "pixels of the source"
            )
        if box.frame < num_frames:
            placed[box.frame] = (
                box.y / height,
                box.x / width,
                (box.y + box.height) / height,
                (box.x + box.width) / width,
            )
        elif is_whole:
            raise UserError(f"{box.where}: there is no frame {box.frame}: the source has {num_frames}, numbered from 0")
    return placed


def upright_size(result: Extraction) -> tuple[int, int] | None:
    """(height, width) of the source's frames as they are seen upright; None where its header does not say."""
    if result.video is None:  # a folder of frames, which are packed as they are
        return None if result.height is None or result.width is None else (result.height, result.width)
    height, width = result.video.height, result.video.width
    is_on_its_side = (result.video.rotation or 0) % 180 == 90
    size = (width, height) if is_on_its_side else (height, width)
    return size if min(size) else None
