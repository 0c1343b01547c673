"""Which ffmpeg is used: the first of those at hand that can do the work, tried out before it is given any."""

from __future__ import annotations

import functools
import logging
import os
import re
import shutil
from collections.abc import Iterator

from preprocessing.ffmpeg.process import ask_ffmpeg
from preprocessing.schema import UserError

log = logging.getLogger(__name__)

VARIABLE = "ADAFOCUS_FFMPEG"
"""Environment variable that names the ffmpeg to use."""
OUTPUT = ("-fps_mode", "passthrough", "-enc_time_base", "1:1000000", "-q:v", "2", "-c:v", "mjpeg", "-f", "mpjpeg")
_FRAMES = 3


@functools.cache
def find_ffmpeg() -> str:
    """Path of the ffmpeg to use: the one that ADAFOCUS_FFMPEG names; else the one on PATH; else the static one of
    imageio-ffmpeg, which is also taken where the one on PATH is too old.

    Raises UserError if none of them can do what is needed.
    """
    if path := os.environ.get(VARIABLE):
        if why := _why_unfit(path):
            raise UserError(f"{VARIABLE} names {path}, which cannot be used: {why}")
        return path
    unfit: list[tuple[str, str]] = []
    for path in _candidates():
        why = _why_unfit(path)
        if not why:
            if unfit:
                log.warning("%s cannot be used (%s): %s is used instead", *unfit[0], path)
            return path
        unfit.append((path, why))
    found = "; ".join(f"{path} cannot be used ({why})" for path, why in unfit)
    raise UserError(f"{found or 'no ffmpeg found'}: install ffmpeg 5.1 or later, or the package imageio-ffmpeg")


@functools.cache
def ffmpeg_version() -> str:
    """First line of `ffmpeg -version`, without the copyright."""
    return _version(find_ffmpeg())


@functools.cache
def has_filters(*names: str) -> bool:
    """Was ffmpeg built with these filters?"""
    _, listed, _ = ask_ffmpeg([find_ffmpeg(), "-hide_banner", "-filters"])
    return set(names) <= set(re.findall(r"^ [T.][S.][C.]? +(\w+) ", listed.decode(), re.MULTILINE))


def _candidates() -> Iterator[str]:
    if path := shutil.which("ffmpeg"):
        yield path
    try:
        import imageio_ffmpeg

        yield str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return


def _version(path: str) -> str:
    _, text, _ = ask_ffmpeg([path, "-version"])
    first = text.decode("utf-8", "replace").partition("\n")[0]
    return first.removeprefix("ffmpeg version ").split(" Copyright")[0].strip()


def _why_unfit(path: str) -> str:
    """Why an ffmpeg cannot be used, empty if it can: it has to write some frames as the extraction's would."""
    argv = [path, "-nostdin", "-hide_banner", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "gray"]
    argv += ["-s", "16x16", "-i", "pipe:0", "-vf", "settb=1/1000000,setpts=N,scale=-1:8", *OUTPUT, "pipe:1"]
    try:
        version = _version(path)
        code, output, messages = ask_ffmpeg(argv, bytes(256 * _FRAMES))
    except OSError as error:
        return f"it does not run: {error}"
    if code == 0 and output.count(b"Content-type: image/jpeg") == _FRAMES:
        return ""
    return f"version {version or 'unknown'}: {messages.strip().partition(chr(10))[0] or f'status {code}'}"
