"""Write a video file: arrays go in, an .mp4 file comes out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from preprocessing.ffmpeg.arguments import encoding_argv
from preprocessing.ffmpeg.process import feed_ffmpeg
from preprocessing.files import atomic_write
from preprocessing.schema import UserError


def encode_video(
    path: Path | str, frames: Iterable[np.ndarray], fps: float, crf: int = 18, preset: str = "veryfast"
) -> None:
    """Write uint8 RGB frames (H, W, 3), H and W even, as an H.264 .mp4 file, whole or not at all.

    Same frames, same ffmpeg: same bytes. Raises ValueError for no frames or unequal ones, UserError if ffmpeg fails: it
    was built without H.264, for instance.
    """
    path, rest = Path(path), iter(frames)
    first = next(rest, None)
    if first is None:
        raise ValueError(f"no frames for {path}")
    height, width = first.shape[:2]
    with atomic_write(path) as partial:
        argv = encoding_argv(partial, width, height, fps, crf, preset)
        if error := feed_ffmpeg(argv, _raw_frames(chain([first], rest), first.shape)):
            raise UserError(f"cannot write {path}: {error}")


def _raw_frames(frames: Iterable[np.ndarray], shape: tuple[int, ...]) -> Iterator[bytes]:
    for frame in frames:
        if frame.shape != shape or frame.dtype != np.uint8:
            raise ValueError(f"a frame is {frame.shape} {frame.dtype}, the first one {shape} uint8")
        yield np.ascontiguousarray(frame).tobytes()
