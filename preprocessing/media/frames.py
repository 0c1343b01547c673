"""The frames of a clip, whether it is a video file or a folder of JPEGs."""

from __future__ import annotations

import threading
from pathlib import Path

from preprocessing.media.extraction import DEFAULT_LIMITS, Limits
from preprocessing.media.frame_folder import FrameFolder
from preprocessing.media.frame_stream import FrameStream, extract_frames
from preprocessing.schema import ExtractionSpec

Frames = FrameStream | FrameFolder
"""Iterate over the JPEGs inside `with`, then read `.result`."""


def open_frames(
    path: Path,
    spec: ExtractionSpec,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    limits: Limits = DEFAULT_LIMITS,
    stop: threading.Event | None = None,
) -> Frames:
    """The frames of a video file, cut to a time range in seconds, or of a folder of JPEGs, which has none."""
    if path.is_dir():
        return FrameFolder(path, spec)
    return extract_frames(path, spec, start_s=start_s, end_s=end_s, limits=limits, stop=stop)
