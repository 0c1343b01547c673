"""Clips that are distributed as folders of JPEGs (Something-Something V1): packed as they are, without re-encoding."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from preprocessing.media.extraction import Extraction
from preprocessing.media.frame_file import read_frame
from preprocessing.media.frame_names import order_frames
from preprocessing.media.jpeg import jpeg_size
from preprocessing.schema import ExtractionSpec, Status

FRAME_EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif")
_OTHER_PICTURES = (".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".jp2", ".avif", ".heic", ".jxl")
_SHOWN = 3


class FrameFolder:
    """The JPEGs of a folder in the order of the numbers in their names. Used like a FrameStream."""

    def __init__(self, path: Path, spec: ExtractionSpec) -> None:
        self._path, self._max_frames = path, spec.max_frames
        self.result = Extraction("decode_failed", "not read yet")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[bytes]:
        try:
            visible = sorted(name for name in os.listdir(self._path) if not name.startswith("."))
        except OSError as error:
            self.result = Extraction("decode_failed", f"the folder cannot be read: {error.strerror}")
            return
        frames = [name for name in visible if name.lower().endswith(FRAME_EXTENSIONS)]
        files = {name for name in frames if (self._path / name).is_file()}
        names, problems = order_frames(files)
        problems += [f"{name}: it is no file" for name in frames if name not in files]
        if others := [name for name in visible if name.lower().endswith(_OTHER_PICTURES)]:
            problems.append(f"{len(others)} pictures that are no JPEGs are left out ({others[0]})")
        first_size: tuple[int, int] | None = None
        count = 0
        for name in names[: self._max_frames]:
            try:
                jpeg, complaint = read_frame((self._path / name).read_bytes())
                size = jpeg_size(jpeg)
                if size != (first_size := first_size or size):
                    height, width = first_size
                    raise ValueError(f"{size[1]}x{size[0]} pixels, the first one has {width}x{height}")
            except (ValueError, OSError) as error:
                problems.append(f"{name}: {error}")
                continue
            if complaint:
                problems.append(f"{name}: {complaint}")
            count += 1
            yield jpeg
        text = "; ".join(problems[:_SHOWN]) + (f" ({len(problems)} in all)" if len(problems) > _SHOWN else "")
        if not count:
            self.result = Extraction("decode_failed", text or "there is no JPEG in the folder")
        else:
            height_px, width_px = first_size or (None, None)
            status: Status = "damaged" if problems else "ok"
            self.result = Extraction(status, text, num_frames=count, height=height_px, width=width_px)
