"""ffmpeg as a process: start it, read what it writes or write what it reads, and end it.

The only file of the project that starts a process: without a shell, and reading both of its outputs, so that neither
can fill up and block it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import IO, Literal, Self

from preprocessing.ffmpeg.log import FFmpegLog

MAX_MEMORY = 4 << 30
"""Address space in bytes that one ffmpeg process may take."""

_PIPE = 1 << 20
_USUAL_PIPE = _LOG = 1 << 16
_FIRST_WAIT_MS, _LONGEST_WAIT_MS = 5, 20

_ANSWER_S = 60.0
_COLOURS = ("AV_LOG_FORCE_COLOR", "AV_LOG_FORCE_256COLOR")


def ask_ffmpeg(argv: list[str], given: bytes = b"") -> tuple[int, bytes, str]:
    """Run ffmpeg to its end with `given` as its standard input: exit status, standard output, standard error.

    For short answers only. Raises OSError if it cannot be started or does not end.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, process_group=0, env=_environment()) as process:
        try:
            output, messages = process.communicate(given, timeout=_ANSWER_S)
        except subprocess.TimeoutExpired as error:
            raise OSError(f"no answer within {_ANSWER_S:g} s") from error
        finally:
            _kill(process)
    return process.returncode, output, messages.decode("utf-8", "replace")


class FFmpegReader:
    """A running ffmpeg whose standard output is read. Leaving the `with` block ends the process."""

    def __init__(
        self, argv: list[str], timeout_s: float, stop: threading.Event | None = None, *, in_bulk: bool = False
    ) -> None:
        """Reading ends after `timeout_s` seconds, or when another thread sets `stop`. `in_bulk`: let some output gather
        before it is read, for whoever wants all of it."""
        self.log = FFmpegLog()
        self.ended_by: Literal["itself", "timeout", "stop", ""] = ""
        """What ended the reading; empty until it ends."""
        self._argv, self._timeout_s, self._stop, self._in_bulk = argv, timeout_s, stop, in_bulk

    def __enter__(self) -> Self:
        self._deadline = time.monotonic() + self._timeout_s
        # Its own process group: a Ctrl-C in the terminal would make ffmpeg end early *and* look successful. It ends
        # with us, for its output pipe breaks.
        self._process = subprocess.Popen(
            self._argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
            env=_environment(),
        )
        _limit_memory(self._process.pid)
        self._capacity = _enlarge_buffer(self._process.stdout)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        _kill(self._process)
        self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def chunks(self) -> Iterator[bytes]:
        """Chunks of standard output, as they come; standard error is read along into `log`, always as far as what
        ffmpeg has said before it wrote the chunk."""
        assert self._process.stdout is not None and self._process.stderr is not None
        out_fd, log_fd = self._process.stdout.fileno(), self._process.stderr.fileno()
        poll = select.poll()
        for fd in (out_fd, log_fd):
            poll.register(fd, select.POLLIN)
        open_fds = {out_fd, log_fd}
        wait_ms = _FIRST_WAIT_MS if self._in_bulk else 0
        end = select.poll()
        end.register(out_fd, 0)

        def read(fd: int) -> bytes:
            chunk = os.read(fd, self._capacity if fd == out_fd else _LOG)
            if not chunk:
                poll.unregister(fd)
                open_fds.remove(fd)
            elif fd == log_fd:
                self.log.feed(chunk)
            return chunk

        while open_fds:
            left_s = self._deadline - time.monotonic()
            if left_s <= 0 or (self._stop is not None and self._stop.is_set()):
                self.ended_by = "timeout" if left_s <= 0 else "stop"
                return
            ready = {fd for fd, _ in poll.poll(min(left_s, 0.5) * 1000)}
            if wait_ms and ready:
                end.poll(wait_ms)  # so long, or until it ends
            chunk = read(out_fd) if out_fd in ready else b""
            if chunk:
                if self._in_bulk:  # never so long that the pipe is full, and ffmpeg waits
                    is_much = len(chunk) > self._capacity // 4
                    wait_ms = wait_ms // 2 if is_much else min(2 * wait_ms + 1, _LONGEST_WAIT_MS)
                ready = {fd for fd, _ in poll.poll(0)}
            if log_fd in ready:
                read(log_fd)  # one reading empties the pipe
            if chunk:
                yield chunk
        self._process.wait(max(self._deadline - time.monotonic(), 1.0))
        self.ended_by = "itself"

    @property
    def returncode(self) -> int | None:
        """Exit status of a process that ended by itself."""
        return self._process.returncode if self.ended_by == "itself" else None


def feed_ffmpeg(argv: list[str], chunks: Iterable[bytes]) -> str:
    """Run ffmpeg with `chunks` as its standard input. Returns its messages if it fails, else an empty text."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=log, stderr=log, process_group=0, env=_environment()
        )
        assert process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # ffmpeg ended early: its log says why
                for chunk in chunks:
                    process.stdin.write(chunk)
                process.stdin.close()
        except BaseException:
            _kill(process)
            raise
        finally:
            code = process.wait()
        log.seek(0)
        return log.read(2000).decode("utf-8", "replace").strip() or f"status {code}" if code else ""


def _environment() -> dict[str, str]:
    """This process's, without the variables by which ffmpeg colours its log, which then could not be read."""
    return {name: value for name, value in os.environ.items() if name not in _COLOURS} | {"AV_LOG_FORCE_NOCOLOR": "1"}


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it has started: an ffmpeg on PATH may be a script around another one."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _limit_memory(pid: int) -> None:
    if hasattr(resource, "prlimit"):  # Linux
        # It may have ended already, or the machine may not let us.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            resource.prlimit(pid, resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))


def _enlarge_buffer(pipe: IO[bytes] | None) -> int:
    """A larger buffer between the processes: fewer turns of reading, and ffmpeg waits less. Returns its bytes."""
    if pipe is not None and hasattr(fcntl, "F_SETPIPE_SZ"):  # Linux
        with contextlib.suppress(OSError):  # more than the machine allows
            return fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)
    return _USUAL_PIPE
