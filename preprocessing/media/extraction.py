"""The extraction of one clip: what it may cost at most, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass

from preprocessing.ffmpeg.video_stream import VideoStream
from preprocessing.schema import Status


@dataclass(frozen=True, slots=True)
class Limits:
    """What one clip may cost at most. Reaching one ends the clip with a reason; it never ends the run."""

    timeout_s: float = 3600.0
    num_frames: int = 500_000
    num_bytes: int = 16 << 30


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Extraction:
    """How the extraction of one clip ended. Sizes in pixels are those of the frames, not of the source."""

    status: Status
    error: str = ""
    num_frames: int = 0
    fps: float | None = None
    height: int | None = None
    width: int | None = None
    duration_s: float | None = None
    """Of the source, as its header says; None where the header does not say."""
    returncode: int | None = None
    """Exit status of ffmpeg, None where it was not waited for."""
    video: VideoStream | None = None
    """What the header says of the source; None for folders of frames."""
