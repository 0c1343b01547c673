"""The frames of a video file: a file goes in, JPEGs come out one by one, and then a verdict on the file.

What a file needs, ffmpeg says only while it reads it. So it is started with what most files need, and started anew
where the header asks for more (another stream, other colours) or the frames change their shape on the way. Frames that
have been given already are not given twice. A range of time is sought, and decoded from the beginning where the seek
does not prove that it landed right.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from preprocessing.ffmpeg.arguments import extraction_argv
from preprocessing.ffmpeg.filters import PLAIN, TONE_MAP_FILTERS, Picture, picture_of
from preprocessing.ffmpeg.log import FFmpegLog
from preprocessing.ffmpeg.process import FFmpegReader
from preprocessing.ffmpeg.program import has_filters
from preprocessing.media.extraction import DEFAULT_LIMITS, Extraction, Limits
from preprocessing.media.jpeg import JpegSplitter, jpeg_size
from preprocessing.media.pixel_shapes import CODEC, pixel_changes
from preprocessing.media.seeking.seek import LEAST_START_S, seek_points, why_unproven
from preprocessing.media.verdict import Ending, judge
from preprocessing.schema import ExtractionSpec


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
    return FrameStream(str(path), spec, start_s=start_s, end_s=end_s, limits=limits, stop=stop)


class FrameStream:
    """ffmpeg, running, whose standard output is a row of JPEGs. Leaving the `with` block ends the process."""

    def __init__(
        self,
        source: str,
        spec: ExtractionSpec,
        *,
        start_s: float | None = None,
        end_s: float | None = None,
        only: Sequence[int] | None = None,
        threads: int = 1,
        limits: Limits = DEFAULT_LIMITS,
        stop: threading.Event | None = None,
    ) -> None:
        """`only`: encode the frames with these indices alone, and count the others. Setting `stop`, in another
        thread, ends it with the error `stopped`."""
        self._source, self._spec, self._limits, self._stop = source, spec, limits, stop
        self._start_s, self._end_s, self._only, self._threads = start_s, end_s, only, threads
        self._picture = PLAIN
        may_seek = spec.profile == "clean" and only is None and (start_s or 0.0) >= LEAST_START_S
        self._seeks: list[float | None] = [*seek_points(start_s or 0.0), None] if may_seek else [None]
        self._num_frames = self._num_bytes = 0
        self._size: tuple[int, int] | None = None
        self._pixels: str | None = None
        self._refused = ""  # why the rest of the output was not read
        self._deadline = time.monotonic() + limits.timeout_s
        self._process = self._command()

    def __enter__(self) -> Self:
        self._deadline = time.monotonic() + self._limits.timeout_s
        self._process.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.__exit__(kind, value, trace)

    def __iter__(self) -> Iterator[bytes]:
        while True:
            picture = self._picture
            for number, jpeg in enumerate(self._jpegs()):
                if (number == 0 or self._log.reshaped) and (picture := self._needed_picture()) != self._picture:
                    break
                if self._is_unproven:
                    break
                if number >= self._num_frames and self._is_accepted(jpeg):
                    yield jpeg
                if self._refused:
                    return
            else:
                picture = self._needed_picture()
            if self._refused or (picture == self._picture and not self._is_unproven):
                return
            if self._is_unproven:
                self._seeks.pop(0)
            self._picture = picture
            self._process.__exit__(None, None, None)
            self._process = self._command()
            self._process.__enter__()

    @property
    def count(self) -> int:
        """Number of frames in the file, those included that were counted and not encoded."""
        return max(self._num_frames, self._log.num_frames)

    @property
    def num_errors(self) -> int:
        """Messages of ffmpeg so far that something is wrong with the file."""
        return self._log.num_errors

    @property
    def reconfigured(self) -> bool:
        """Did frames change their size or format on the way? Then the indices of `only` began anew."""
        return self._log.reconfigured

    @property
    def result(self) -> Extraction:
        """How it ended. To be read after the iteration, inside or after the `with` block."""
        ending = Ending(
            log=self._log,
            limits=self._limits,
            count=self.count,
            is_capped=self.count == self._spec.max_frames,
            start_s=self._start_s or 0.0,
            end_s=self._end_s,
            ended_by=self._process.ended_by,
            returncode=self._process.returncode,
            refused=self._refused,
            pixels=self._pixel_changes(),
        )
        status, error = judge(ending)
        height, width = self._size or (None, None)
        video = self._log.video
        return Extraction(
            status=status,
            error=error,
            num_frames=self.count,
            fps=self._spec.fps or (video.fps if video else None),
            height=height,
            width=width,
            duration_s=self._log.duration_s,
            video=video,
            returncode=self._process.returncode,
        )

    def _pixel_changes(self) -> str:
        """How the shape of pixels changes in a file that was read whole."""
        video, is_cut = self._log.video, self._start_s is not None or self._end_s is not None
        if self._process.ended_by != "itself" or is_cut or video is None or video.codec != CODEC:
            return ""
        if self._pixels is None:
            self._pixels = pixel_changes(self._source, video)
        return self._pixels

    @property
    def _is_unproven(self) -> bool:
        """Was a seek made that has not landed for certain where it should, or that has come to a bad end?"""
        if self._seeks[0] is None or self._process.ended_by in ("timeout", "stop"):
            return False
        is_bad_end = self._process.ended_by == "itself" and (self._process.returncode != 0 or not self._num_frames)
        return is_bad_end or bool(why_unproven(self._log, (self._start_s or 0.0) - self._seeks[0]))

    @property
    def _log(self) -> FFmpegLog:
        return self._process.log

    def _command(self) -> FFmpegReader:
        argv = extraction_argv(
            self._source,
            self._spec,
            start_s=self._start_s,
            end_s=self._end_s,
            only=self._only,
            picture=self._picture,
            seek_s=self._seeks[0],
            threads=self._threads,
        )
        left_s = max(self._deadline - time.monotonic(), 0.0)
        return FFmpegReader(argv, left_s, self._stop, in_bulk=self._only is None)

    def _jpegs(self) -> Iterator[bytes]:
        """What the running process writes."""
        splitter = JpegSplitter()
        try:
            for chunk in self._process.chunks():
                yield from splitter.feed(chunk)
                if self._num_bytes + splitter.pending > self._limits.num_bytes:
                    self._refused = f"more than {self._limits.num_bytes} bytes of frames"
                    return
        except ValueError as error:
            self._refused = f"unreadable output of ffmpeg: {error}"

    def _is_accepted(self, jpeg: bytes) -> bool:
        """Count a frame; False where it goes beyond a limit."""
        self._num_frames += 1
        self._num_bytes += len(jpeg)
        self._size = self._size or jpeg_size(jpeg)
        if self._num_frames > self._limits.num_frames:
            self._refused = f"more than {self._limits.num_frames} frames"
        elif self._num_bytes > self._limits.num_bytes:
            self._refused = f"more than {self._limits.num_bytes} bytes of frames"
        return not self._refused

    def _needed_picture(self) -> Picture:
        """What the frames need, by what the log says so far; the present one while that is enough."""
        log, spec = self._log, self._spec
        video = log.video
        if video is None or self._refused:
            return self._picture
        is_cut = log.reshaped and self._only is None and spec.profile == "clean"
        needed = picture_of(video, spec, self._size if is_cut else self._picture.box)
        if needed.colours and (why := _why_no_tone_map(video.dolby_profile)):
            self._refused = why
        first = next(stream.number for stream in log.streams if not stream.is_cover)
        if needed.stream == first and self._picture.stream is None:
            needed = replace(needed, stream=None)
        return needed


def _why_no_tone_map(dolby_profile: int | None) -> str:
    if dolby_profile == 5:
        return "the colours of Dolby Vision profile 5 cannot be converted (--no-tone-map packs them as they are)"
    if not has_filters(*TONE_MAP_FILTERS):
        return (
            "it is HDR or has wide colours, which this ffmpeg cannot convert (it has no zscale filter): use another "
            "ffmpeg, or --no-tone-map"
        )
    return ""
