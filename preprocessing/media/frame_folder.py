"""Clips that are distributed as folders of JPEGs (Something-Something V1): packed as they are, without re-encoding."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from preprocessing.media.extraction import Extraction
from preprocessing.media.jpeg import EOI, jpeg_size
from preprocessing.schema import ExtractionSpec, Status

FRAME_EXTENSIONS = (".jpg", ".jpeg")


class FrameFolder:
    """The JPEGs of a folder, byte for byte, in the order of their names. Used like a FrameStream."""

    def __init__(self, path: Path, spec: ExtractionSpec) -> None:
        self._path, self._max_frames = path, spec.max_frames
        self.result = Extraction("decode_failed", "not read yet")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[bytes]:
        names = sorted(entry.name for entry in os.scandir(self._path) if entry.is_file())
        names = [name for name in names if name.lower().endswith(FRAME_EXTENSIONS)][: self._max_frames]
        problems: list[str] = []
        first_size: tuple[int, int] | None = None
        count = 0
        for name in names:
            data = (self._path / name).read_bytes()
            try:
                size = jpeg_size(data)
                if size != (first_size := first_size or size):
                    height, width = first_size
                    raise ValueError(f"{size[1]}x{size[0]} pixels, the first one has {width}x{height}")
                if not data.rstrip(b"\0").endswith(EOI):
                    raise ValueError("it is cut off")
            except ValueError as error:
                problems.append(f"{name}: {error}")
                continue
            count += 1
            yield data
        height_px, width_px = first_size or (None, None)
        text = "; ".join(problems[:3]) + (f" ({len(problems)} frames)" if len(problems) > 3 else "")
        if not count:
            self.result = Extraction("decode_failed", text or "there is no JPEG in the folder")
        else:
            status: Status = "damaged" if problems else "ok"
            self.result = Extraction(status, text, num_frames=count, height=height_px, width=width_px)
