"""Boxes of objects that a user has annotated: `boxes.csv` goes in; the clips with their boxes come out.

A row is `path,frame,x,y,w,h`: a clip's path as everywhere else, the number of a frame from 0, and the box in pixels of
that frame. Frames of a listed clip that have no row show no object.
"""

from __future__ import annotations

import logging
import math
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from preprocessing.datasets.annotations import csv_rows, first_existing, to_float, to_int
from preprocessing.schema import Clip, SourceBox, UserError

log = logging.getLogger(__name__)

BOXES = "boxes.csv"


def add_boxes(root: Path, clips: Sequence[Clip]) -> list[Clip]:
    """The clips with the boxes of `boxes.csv`, if there is one below `root`.

    Raises UserError, with file and line, for a bad row, and for boxes of a clip that does not begin with its file.
    """
    path = first_existing(root, [BOXES])
    if path is None:
        return list(clips)
    boxes = read_boxes(path)
    for clip in clips:
        own = boxes.get(posixpath.normpath(clip.source))
        if own and clip.start_s:
            raise UserError(
                f"{own[0].where}: boxes number the frames of a whole file, but clip {clip.clip_id!r} begins at "
                f"{clip.start_s:g} s of {clip.source!r}: cut that file into files of their own, or remove its boxes"
            )
    listed = {posixpath.normpath(clip.source) for clip in clips}
    _log_unlisted(boxes, listed)
    if not boxes.keys() & listed:
        raise UserError(f"{path}: no row is of a clip; its paths are those of the clips, such as {clips[0].source}")
    return [
        replace(clip, source_boxes=tuple(boxes[source]))
        if (source := posixpath.normpath(clip.source)) in boxes
        else clip
        for clip in clips
    ]


def read_boxes(path: Path) -> dict[str, list[SourceBox]]:
    """The boxes of each path in the file. Raises UserError, with file and line, for a row that says none."""
    boxes: dict[str, dict[int, SourceBox]] = {}
    for where, row in csv_rows(path, ("path", "frame", "x", "y", "w", "h")):
        frame = to_int(row["frame"], "frame", where)
        if frame < 0:
            raise UserError(f"{where}: frame is {frame}, but frames are numbered from 0")
        x, y, width, height = (_pixels(row, column, where) for column in ("x", "y", "w", "h"))
        if width <= 0 or height <= 0:
            raise UserError(f"{where}: the box has {width:g} x {height:g} pixels: remove a row without an object")
        source = posixpath.normpath(row["path"].strip())
        others = boxes.setdefault(source, {})
        if frame in others:
            raise UserError(
                f"{where}: frame {frame} of {source!r} has a box already, at {others[frame].where}: keep the one of "
                "the object that makes the class"
            )
        others[frame] = SourceBox(frame, x, y, width, height, where)
    found = {source: [own[frame] for frame in sorted(own)] for source, own in boxes.items()}
    every = [box for own in found.values() for box in own]
    if every and all(max(box.x + box.width, box.y + box.height) <= 1 for box in every):
        raise UserError(
            f"{every[0].where}: all boxes of the file lie within the first pixel: if they are fractions of the frame, "
            "multiply them by its width and height"
        )
    return found


def _pixels(row: Mapping[str, str], column: str, where: str) -> float:
    value = to_float(row[column], f"{column} in pixels", where)
    if not math.isfinite(value):
        raise UserError(f"{where}: {column} is {row[column]!r}, not a number of pixels")
    return value


def _log_unlisted(boxes: Mapping[str, Sequence[SourceBox]], listed: set[str]) -> None:
    unlisted = [source for source in boxes if source not in listed]
    if unlisted:
        more = f" (and of {len(unlisted) - 1} more)" if len(unlisted) > 1 else ""
        where = boxes[unlisted[0]][0].where
        log.warning("%s: boxes of %r%s are left out, for that is no clip", where, unlisted[0], more)
