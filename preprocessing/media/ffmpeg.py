"""Run ffmpeg: a video file goes in, JPEG frames come out one by one; or arrays go in and a video file comes out.

The only file of the project that starts a process. Command lines are built with ffmpeg-python; they are run here,
without a shell, reading both of the process's outputs so that neither can fill up and block it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import resource
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import ffmpeg
import numpy as np

from preprocessing.files import atomic_write
from preprocessing.media.ffmpeg_log import FFmpegLog
from preprocessing.media.jpeg import JpegSplitter, jpeg_size
from preprocessing.schema import ExtractionSpec, Status, UserError

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg"
"""Demuxers that may open a stranger's file. Playlists and concat scripts, which name other files, are not here."""
MAX_PIXELS = 8192 * 8192
"""A larger picture is refused by the decoder: one frame of it would need hundreds of megabytes."""
MAX_MEMORY = 4 << 30
"""Address space in bytes that one ffmpeg process may take."""

_READ = 1 << 17
_PIPE = 1 << 20
_GLOBAL = (
    *("-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info", "-filter_threads", "1"),
    # A period longer than any run: only the last report, which holds the time of the last frame, is of use.
    *("-progress", "pipe:2", "-stats_period", "1000000"),
)


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


@functools.cache
def find_ffmpeg() -> str:
    """Path of ffmpeg: the one on PATH, else the static one of imageio-ffmpeg. Raises UserError if there is neither."""
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise UserError(f"no ffmpeg found: install ffmpeg or the package imageio-ffmpeg ({error})") from error


@functools.cache
def ffmpeg_version() -> str:
    """First line of `ffmpeg -version`, without the copyright."""
    text = subprocess.run([find_ffmpeg(), "-version"], capture_output=True, text=True, check=True).stdout
    return text.splitlines()[0].removeprefix("ffmpeg version ").split(" Copyright")[0]


def extraction_argv(
    source: str,
    spec: ExtractionSpec,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    only: Sequence[int] | None = None,
) -> list[str]:
    """The command that writes the frames of `source` as JPEGs to its standard output.

    `clean` passes every decoded frame through. `paper` is the reference implementation's
    `ffmpeg -i X -vf scale=-1:360 [-r FPS] image_%05d.jpg`: constant frame rate, default JPEG quality. A time range is
    cut on decoded time stamps, half-open, without seeking, for seeking is not exact with open groups of pictures.
    `only` (of `clean`) encodes the frames with these indices alone; a first output then counts all of them.
    """
    filters = []
    if start_s is not None or end_s is not None:
        start = "" if start_s is None else f"start={start_s:.6f}:"
        end = "" if end_s is None else f"end={end_s:.6f}:"
        filters += [f"trim={(start + end).rstrip(':')}", "setpts=PTS-STARTPTS"]
    output: dict[str, Any] = {"map": "0:V:0", "format": "mpjpeg", "vcodec": "mjpeg", "threads": 1}
    if spec.profile == "clean":
        filters += [f"fps={spec.fps}"] if spec.fps else []
        output |= {"fps_mode": "passthrough", "q:v": spec.quality}
    elif spec.fps:
        output["r"] = spec.fps
    limit = {"frames:v": spec.max_frames} if spec.max_frames else {}
    picked = [] if only is None else [f"select='{'+'.join(f'eq(n,{index})' for index in only)}'"]
    output["vf"] = ",".join([*filters, *picked, f"scale=-1:{spec.height}"])
    given = _input(source)
    outputs = []
    if only is not None:
        output["frames:v"] = len(only)  # ends when it has them; the count goes on
        counted = {"map": "0:V:0", "format": "null", "fps_mode": "passthrough", **limit}
        outputs.append(given.output("-", vf=",".join([*filters, "null"]), an=None, sn=None, dn=None, **counted))
    else:
        output |= limit
    if only is None or len(only):
        outputs.append(given.output("pipe:1", an=None, sn=None, dn=None, **output))
    return [find_ffmpeg(), *_GLOBAL, *ffmpeg.merge_outputs(*outputs).get_args()]


def packets_argv(source: str) -> list[str]:
    """The command that counts the packets of the video stream: nearly always as many as frames, and nothing decoded."""
    stream = _input(source).output("-", map="0:V:0", c="copy", format="null", an=None, sn=None, dn=None)
    return [find_ffmpeg(), *_GLOBAL, *stream.get_args()]


def _input(source: str) -> Any:
    """A stranger's file, opened with care."""
    return ffmpeg.input(
        f"file:{source}",
        threads=1,
        protocol_whitelist="file",
        format_whitelist=FORMATS,
        max_pixels=MAX_PIXELS,
    )


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
        self.argv = argv
        self._stop = stop
        self._spec, self._range, self._limits = spec, (start_s or 0.0, end_s), limits
        self._log = FFmpegLog()
        self._num_frames = self._num_bytes = 0
        self._first: tuple[int, int] = (0, 0)
        self._stopped = ""  # the limit that ended it
        self._finished = False

    def __enter__(self) -> Self:
        self._deadline = time.monotonic() + self._limits.timeout_s
        # Its own process group: a Ctrl-C in the terminal would make ffmpeg end early *and* look successful. It ends
        # with us, for its output pipe breaks.
        self._process = subprocess.Popen(
            self.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )
        _limit_memory(self._process.pid)
        _widen(self._process.stdout)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def __iter__(self) -> Iterator[bytes]:
        splitter = JpegSplitter()
        try:
            for chunk in self._chunks():
                for jpeg in splitter.feed(chunk):
                    self._num_frames += 1
                    self._num_bytes += len(jpeg)
                    if self._num_frames == 1:
                        self._first = jpeg_size(jpeg)
                    if self._num_frames > self._limits.num_frames:
                        self._stopped = f"more than {self._limits.num_frames} frames"
                    elif self._num_bytes + splitter.pending > self._limits.num_bytes:
                        self._stopped = f"more than {self._limits.num_bytes} bytes of frames"
                    if self._stopped:
                        return
                    yield jpeg
            self._finished = True
        except ValueError as error:
            self._stopped = f"unreadable output of ffmpeg: {error}"

    def _chunks(self) -> Iterator[bytes]:
        """Chunks of standard output while standard error is read along. Ends at the end of both or at the deadline."""
        waiting, open_pipes = select.poll(), 2
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            waiting.register(pipe, select.POLLIN)
        assert self._process.stderr is not None
        log_fd = self._process.stderr.fileno()
        while open_pipes:
            left = self._deadline - time.monotonic()
            if left <= 0 or (self._stop is not None and self._stop.is_set()):
                self._stopped = "timeout" if left <= 0 else "stopped"
                return
            for fd, _ in waiting.poll(min(left, 0.5) * 1000):
                chunk = os.read(fd, _READ)
                if not chunk:
                    waiting.unregister(fd)
                    open_pipes -= 1
                elif fd == log_fd:
                    self._log.feed(chunk)
                else:
                    yield chunk
        self._process.wait(max(self._deadline - time.monotonic(), 1.0))

    @property
    def count(self) -> int:
        """Frames that there are, encoded or only counted."""
        return max(self._num_frames, self._log.num_frames)

    @property
    def reconfigured(self) -> bool:
        """Did frames change their size or format on the way? Then the indices of `only` began anew."""
        return self._log.reconfigured

    @property
    def result(self) -> Extraction:
        """How it ended. To be read after the iteration, inside or after the `with` block."""
        status, error = self._verdict()
        height, width = self._first
        return Extraction(
            status=status,
            error=error,
            num_frames=self.count,
            fps=self._spec.fps or self._log.fps,
            height=height or None,
            width=width or None,
            duration_s=self._log.duration_s,
            returncode=self._process.returncode if self._finished else None,
        )

    def _verdict(self) -> tuple[Status, str]:
        log, code = self._log, self._process.returncode
        said = "; ".join(log.errors) + (f" ({log.num_errors} messages)" if log.num_errors > 3 else "")
        if self._stopped == "timeout":
            return "timeout", f"no end after {self._limits.timeout_s:g} s and {self._num_frames} frames"
        if self._stopped:
            return "decode_failed", self._stopped
        if self._finished and code in (-signal.SIGKILL, -signal.SIGTERM):
            return "decode_failed", f"ffmpeg was killed by {signal.Signals(-code).name} (out of memory?)"
        if not log.opened:
            return "probe_failed", said or "ffmpeg cannot open it"
        if not log.has_video:
            return "probe_failed", "there is no video stream in it"
        if self.count == 0:
            return "decode_failed", self._no_frames(said)
        if log.num_errors:
            return "damaged", said
        if code != 0:
            return "damaged", f"ffmpeg ended with status {code}"
        return ("damaged", early) if (early := self._ends_early()) else ("ok", "")

    def _no_frames(self, said: str) -> str:
        start_s, _ = self._range
        if self._log.duration_s is not None and start_s >= self._log.duration_s:
            return f"the range starts at {start_s:g} s, the file ends at {self._log.duration_s:g} s"
        return said or "no frame could be decoded"

    def _ends_early(self) -> str:
        """A container that was cut off without the decoder noticing: its header promises more time than came out."""
        log, (start_s, end_s) = self._log, self._range
        if log.duration_s is None or log.out_time_s is None or self.count == self._spec.max_frames:
            return ""
        expected_s = min(end_s or log.duration_s, log.duration_s) - start_s
        if log.out_time_s >= 0.8 * expected_s - 1.0:
            return ""
        return f"frames end after {log.out_time_s:.1f} s of {expected_s:.1f} s"


def encode_video(
    path: Path | str, frames: Iterable[np.ndarray], fps: float, crf: int = 18, preset: str = "veryfast"
) -> None:
    """Write uint8 RGB frames (H, W, 3), H and W even, as an H.264 .mp4 file, atomically.

    Same frames, same ffmpeg: same bytes. Raises ValueError for no frames or unequal ones, RuntimeError if ffmpeg fails.
    """
    path = Path(path)
    rows = iter(frames)
    first = next(rows, None)
    if first is None:
        raise ValueError(f"no frames for {path}")
    height, width = first.shape[:2]
    exact = {"fflags": "+bitexact", "flags:v": "+bitexact", "map_metadata": -1, "threads": 1, "format": "mp4"}
    exact |= {"vcodec": "libx264", "pix_fmt": "yuv420p", "movflags": "+faststart"}
    with atomic_write(path) as partial:
        stream = ffmpeg.input("pipe:0", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", r=fps).output(
            f"file:{partial}", crf=crf, preset=preset, **exact
        )
        argv = [find_ffmpeg(), "-hide_banner", "-loglevel", "error", "-y", *stream.get_args()]
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=log, stderr=log, process_group=0)
            assert process.stdin is not None
            try:
                with contextlib.suppress(BrokenPipeError):  # ffmpeg ended early: its log says why
                    _write_raw(process.stdin, first, rows)
                    process.stdin.close()
            except BaseException:
                process.kill()
                raise
            finally:
                code = process.wait()
            if code:
                log.seek(0)
                raise RuntimeError(f"cannot encode {path}: {log.read(2000).decode('utf-8', 'replace').strip()}")


def _write_raw(pipe: IO[bytes], first: np.ndarray, rest: Iterator[np.ndarray]) -> None:
    pipe.write(np.ascontiguousarray(first).tobytes())
    for frame in rest:
        if frame.shape != first.shape or frame.dtype != np.uint8:
            raise ValueError(f"a frame is {frame.shape} {frame.dtype}, the first one {first.shape} uint8")
        pipe.write(np.ascontiguousarray(frame).tobytes())


def _limit_memory(pid: int) -> None:
    if hasattr(resource, "prlimit"):  # Linux
        # It may have ended already, or the machine may not let us.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            resource.prlimit(pid, resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))


def _widen(pipe: IO[bytes] | None) -> None:
    """A larger buffer between the processes: fewer turns of reading, and ffmpeg waits less."""
    if pipe is not None and hasattr(fcntl, "F_SETPIPE_SZ"):  # Linux
        with contextlib.suppress(OSError):  # more than the machine allows
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)
