"""The frames of a video file: a file goes in, JPEGs come out one by one, and then a verdict on the file."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from preprocessing.media.arguments import extraction_argv
from preprocessing.media.extraction import DEFAULT_LIMITS, Extraction, Limits
from preprocessing.media.ffmpeg import FFmpegReader
from preprocessing.media.jpeg import JpegSplitter, jpeg_size
from preprocessing.schema import ExtractionSpec, Status


def extract_frames(
    path: Path | str,
    spec: ExtractionSpec,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    limits: Limits = DEFAULT_LIMITS,
    stop: threading.Event | None = None,
) -> FrameStream:
    """Frames of a video file as JPEG bytes: iterate inside `with`, then read `.result`.

    Nothing about the file raises: whatever it holds, `.result` says how it ended. OSError comes only from starting
    ffmpeg. Memory is that of a few frames, however long the clip.
    """
    argv = extraction_argv(str(path), spec, start_s=start_s, end_s=end_s)
    return FrameStream(argv, spec, start_s, end_s, limits, stop)


class FrameStream:
    """A running ffmpeg whose standard output is a row of JPEGs. Leaving the `with` block ends the process."""

    def __init__(
        self,
        argv: list[str],
        spec: ExtractionSpec,
        start_s: float | None = None,
        end_s: float | None = None,
        limits: Limits = DEFAULT_LIMITS,
        stop: threading.Event | None = None,
    ) -> None:
        """Setting `stop`, in another thread, ends it with the error `stopped`."""
        self._process = FFmpegReader(argv, limits.timeout_s, stop)
        self._log = self._process.log
        self._spec, self._start_s, self._end_s, self._limits = spec, start_s or 0.0, end_s, limits
        self._num_frames = self._num_bytes = 0
        self._size: tuple[int, int] | None = None
        self._refused = ""  # why the rest of its output was not read

    def __enter__(self) -> Self:
        self._process.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.__exit__(kind, value, trace)

    def __iter__(self) -> Iterator[bytes]:
        splitter = JpegSplitter()
        try:
            for chunk in self._process.chunks():
                for jpeg in splitter.feed(chunk):
                    self._num_frames += 1
                    self._num_bytes += len(jpeg)
                    self._size = self._size or jpeg_size(jpeg)
                    if self._num_frames > self._limits.num_frames:
                        self._refused = f"more than {self._limits.num_frames} frames"
                    elif self._num_bytes + splitter.pending > self._limits.num_bytes:
                        self._refused = f"more than {self._limits.num_bytes} bytes of frames"
                    if self._refused:
                        return
                    yield jpeg
        except ValueError as error:
            self._refused = f"unreadable output of ffmpeg: {error}"

    @property
    def count(self) -> int:
        """Number of frames in the file, those included that were counted and not encoded."""
        return max(self._num_frames, self._log.num_frames)

    @property
    def reconfigured(self) -> bool:
        """Did frames change their size or format on the way? Then the indices of `only` began anew."""
        return self._log.reconfigured

    @property
    def result(self) -> Extraction:
        """How it ended. To be read after the iteration, inside or after the `with` block."""
        status, error = self._judge()
        height, width = self._size or (None, None)
        return Extraction(
            status=status,
            error=error,
            num_frames=self.count,
            fps=self._spec.fps or self._log.fps,
            height=height,
            width=width,
            duration_s=self._log.duration_s,
            returncode=self._process.returncode,
        )

    def _judge(self) -> tuple[Status, str]:
        """Status of the clip, and the reason in words."""
        log, code = self._log, self._process.returncode
        messages = "; ".join(log.errors) + (f" ({log.num_errors} messages)" if log.num_errors > 3 else "")
        if self._process.ended_by == "timeout":
            return "timeout", f"no end after {self._limits.timeout_s:g} s and {self._num_frames} frames"
        if self._process.ended_by == "stop":
            return "decode_failed", "stopped"
        if self._refused:
            return "decode_failed", self._refused
        if code in (-signal.SIGKILL, -signal.SIGTERM):
            return "decode_failed", f"ffmpeg was killed by {signal.Signals(-code).name} (out of memory?)"
        if not log.opened:
            return "probe_failed", messages or "ffmpeg cannot open it"
        if not log.has_video:
            return "probe_failed", "there is no video stream in it"
        if self.count == 0:
            return "decode_failed", self._why_no_frames(messages)
        if log.num_errors:
            return "damaged", messages
        if code != 0:
            return "damaged", f"ffmpeg ended with status {code}"
        return ("damaged", early) if (early := self._why_early()) else ("ok", "")

    def _why_no_frames(self, messages: str) -> str:
        duration_s = self._log.duration_s
        if duration_s is not None and self._start_s >= duration_s:
            return f"the range starts at {self._start_s:g} s, the file ends at {duration_s:g} s"
        return messages or "no frame could be decoded"

    def _why_early(self) -> str:
        """A container that was cut off without the decoder noticing: its header promises more time than came out."""
        log = self._log
        if log.duration_s is None or log.out_time_s is None or self.count == self._spec.max_frames:
            return ""
        expected_s = min(self._end_s or log.duration_s, log.duration_s) - self._start_s
        if log.out_time_s >= 0.8 * expected_s - 1.0:
            return ""
        return f"frames end after {log.out_time_s:.1f} s of {expected_s:.1f} s"
