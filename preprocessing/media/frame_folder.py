"""Clips that are distributed as folders of JPEGs (Something-Something V1): packed as they are, without re-encoding."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from preprocessing.clips import FRAME_EXTENSIONS
from preprocessing.media.ffmpeg import Extraction
from preprocessing.media.jpeg import jpeg_size
from preprocessing.schema import ExtractionSpec, Status


class FrameFolder:
    """The JPEGs of a folder, byte for byte, in the order of their names: the interface of a FrameStream."""

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
        bad: list[str] = []
        size: tuple[int, int] | None = None
        count = 0
        for name in names:
            data = (self._path / name).read_bytes()
            try:
                found = jpeg_size(data)
                if found != (size := size or found):
                    raise ValueError(f"{found[1]}x{found[0]} pixels, the first one has {size[1]}x{size[0]}")
                if not data.rstrip(b"\0").endswith(b"\xff\xd9"):
                    raise ValueError("it is cut off")
            except ValueError as error:
                bad.append(f"{name}: {error}")
                continue
            count += 1
            yield data
        height, width = size or (None, None)
        problem = "; ".join(bad[:3]) + (f" ({len(bad)} frames)" if len(bad) > 3 else "")
        if not count:
            self.result = Extraction("decode_failed", problem or "there is no JPEG in the folder")
        else:
            status: Status = "damaged" if bad else "ok"
            self.result = Extraction(status, problem, num_frames=count, height=height, width=width)
