"""Boxes of clips' objects for the frames that were packed: clips and the rows of an index go in, fractions come out.

Fractions of a frame are the same before and after scaling, whatever the shape of its pixels; only the size of the
upright source has to be known. They are worked out when the index is written, from rows alone, so that a mended box
costs no new extraction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from preprocessing.media.extraction import Extraction
from preprocessing.schema import INDEX_SCHEMA, USABLE, Clip, ExtractionSpec, SourceBox, UserError

Fractions = tuple[float, float, float, float]
"""(top, left, bottom, right) of a box, of the frame's height and width; NaN where there is no object."""

NO_OBJECT: Fractions = (math.nan, math.nan, math.nan, math.nan)
_NEEDED = ("status", "num_frames", "source_frames", "frame_indices", "source_height", "source_width", "boxes")


def check_boxes(clips: Sequence[Clip], spec: ExtractionSpec) -> None:
    """Raise UserError if the packed frames would not be the source's, whose numbers the boxes state."""
    boxes = next((clip.source_boxes for clip in clips if clip.source_boxes), None)
    if boxes and spec.fps is not None:
        raise UserError(
            f"{boxes[0].where}: boxes number the frames of the source, but --fps {spec.fps:g} makes others: leave "
            "--fps out, or boxes.csv away"
        )


def with_boxes(rows: pa.Table, clips: Sequence[Clip], spec: ExtractionSpec) -> pa.Table:
    """The rows of these clips, in their order, each with its clip's boxes.

    Raises UserError, with file and line of the first one, if there are boxes that no frame of their source can have.
    """
    numbers = [number for number, clip in enumerate(clips) if clip.boxes or clip.source_boxes]
    placed: list[list[Fractions] | None] = [None] * len(clips)
    wrong = list[str]()
    for number, row in zip(numbers, rows.select(_NEEDED).take(pa.array(numbers, pa.int64())).to_pylist(), strict=True):
        try:
            placed[number] = _packed_boxes(clips[number], spec, row)
        except UserError as error:
            wrong.append(str(error))
    if wrong:
        more = f" (and boxes of {len(wrong) - 1} other clips are wrong)" if len(wrong) > 1 else ""
        raise UserError(f"{wrong[0]}{more}; mend that and start again: what is packed is kept")
    field = INDEX_SCHEMA.field("boxes")
    return rows.set_column(rows.column_names.index("boxes"), field, pa.array(placed, field.type))


def _packed_boxes(clip: Clip, spec: ExtractionSpec, row: Mapping[str, Any]) -> list[Fractions] | None:
    """One box for each packed frame; None where they are unknown.

    That is also where damage may have cost frames before others, so that their numbers are not the source's any more.
    Raises UserError, with file and line, for a box that no frame of the source can have.
    """
    if row["status"] not in USABLE:
        return None
    num_frames = row["source_frames"] or row["num_frames"]
    if clip.source_boxes is None:
        boxes = list(clip.boxes) if clip.boxes and len(clip.boxes) == num_frames else None
    elif row["status"] != "ok":
        boxes = None
    elif row["source_height"] is None or row["source_width"] is None:
        return row["boxes"]  # an earlier version's row, which has the boxes that were there then
    else:
        size = (row["source_height"], row["source_width"])
        boxes = place_in_frames(clip.source_boxes, *size, num_frames, is_whole=is_whole(clip, spec, num_frames))
    return boxes and [boxes[index] for index in row["frame_indices"] or range(num_frames)]


def is_whole(clip: Clip, spec: ExtractionSpec, num_frames: int) -> bool:
    """Are so many frames all that the source of a clip has?"""
    return clip.end_s is None and num_frames != spec.max_frames


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
    if result.video is not None:
        return result.video.upright_size
    # a folder of frames, which are packed as they are
    return None if result.height is None or result.width is None else (result.height, result.width)
