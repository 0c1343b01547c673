"""Which ffmpeg is used: the first of those at hand that can do the work, tried out before it is given any."""

from __future__ import annotations

import functools
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from preprocessing.ffmpeg.process import ask_ffmpeg
from preprocessing.schema import UserError

log = logging.getLogger(__name__)

VARIABLE = "ADAFOCUS_FFMPEG"
"""Environment variable that names the ffmpeg to use."""
OUTPUT = ("-fps_mode", "passthrough", "-enc_time_base", "1:1000000", "-q:v", "2", "-c:v", "mjpeg", "-f", "mpjpeg")
_FRAMES = 3
_PART = re.compile(rb"\s*--[^\r\n]+\r\nContent-type: image/jpeg\r\n")
_VERSION = re.compile(r"^ffmpeg version (.*)", re.MULTILINE)
_CODEC = re.compile(r"^ ([D.])[E.][VAS][I.][L.][S.] +(\w+) +(.*)$", re.MULTILINE)
_DECODED = {"h264": "H.264", "hevc": "H.265", "mpeg4": "MPEG-4", "vp9": "VP9", "av1": "AV1"}
"""Codecs that videos usually have -> their names for readers."""


@functools.cache
def find_ffmpeg() -> str:
    """Absolute path of the ffmpeg to use: the one that ADAFOCUS_FFMPEG names; else the one on PATH; else the static one
    of imageio-ffmpeg, which is also taken where the one on PATH is too old or lacks codecs that videos usually have.

    Raises UserError if none of them can do what is needed.
    """
    if named := os.environ.get(VARIABLE):
        path = _absolute(named)
        if why := _why_unfit(path):
            raise UserError(f"{VARIABLE} names {named}, which cannot be used: {why}")
        if lacking := lacking_codecs(path):
            log.warning("%s, which %s names, %s", path, VARIABLE, lacking)
        return path
    unfit: list[str] = []
    poor: list[tuple[str, str]] = []
    for path in _candidates():
        why = _why_unfit(path)
        lacking = why or lacking_codecs(path)
        if not lacking:
            for reason in [*unfit, *(f"{each} {words}" for each, words in poor)]:
                log.warning("%s: %s is used instead", reason, path)
            return path
        if why:
            unfit.append(f"{path} cannot be used ({why})")
        else:
            poor.append((path, lacking))
    if poor:
        log.warning("%s %s", *poor[0])
        return poor[0][0]
    found = "; ".join(unfit)
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


@functools.cache
def lacking_codecs(path: str) -> str:
    """What an ffmpeg was built without, of what videos usually need, in words; empty if it has all.

    Some systems leave out codecs that are patented: Fedora's `ffmpeg-free`, for instance.
    """
    _, listed, _ = ask_ffmpeg([path, "-hide_banner", "-codecs"])
    known = {name: (reads == "D", line) for reads, name, line in _CODEC.findall(listed.decode("utf-8", "replace"))}
    lacking = [f"cannot decode {title}" for name, title in _DECODED.items() if not known.get(name, (False,))[0]]
    if "libx264" not in known.get("h264", ("", ""))[1]:
        lacking.append("cannot write .mp4 files (it has no libx264)")
    return ", ".join(lacking)


def _absolute(named: str) -> str:
    """The program that a user's text names: a path, or a name that is looked for as a shell does."""
    path = Path(named).expanduser() if named.startswith("~") else Path(named)
    return str(path.absolute()) if os.sep in named else os.path.abspath(shutil.which(named) or named)


def _candidates() -> Iterator[str]:
    if path := shutil.which("ffmpeg"):
        yield os.path.abspath(path)
    try:
        import imageio_ffmpeg

        yield str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return


def _version(path: str) -> str:
    _, text, _ = ask_ffmpeg([path, "-version"])
    found = _VERSION.search(text.decode("utf-8", "replace"))
    return found[1].split(" Copyright")[0].strip() if found else ""


def _why_unfit(path: str) -> str:
    """Why an ffmpeg cannot be used, empty if it can: it has to write some frames as the extraction's would."""
    argv = [path, "-nostdin", "-hide_banner", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "gray"]
    argv += ["-s", "16x16", "-i", "pipe:0", "-vf", "settb=1/1000000,setpts=N,scale=-1:8", *OUTPUT, "pipe:1"]
    if os.path.isdir(path):
        return "it is a folder: name the program in it"
    try:
        version = _version(path)
        code, output, messages = ask_ffmpeg(argv, bytes(256 * _FRAMES))
    except (OSError, ValueError) as error:
        return f"it does not run: {error}"
    if code == 0 and len(_PART.findall(output)) == _FRAMES:
        if _PART.match(output):
            return ""
        words = output.partition(b"\n")[0][:80].decode("utf-8", "replace").strip()
        return f"it writes something before its output: {words!r}"
    return f"version {version or 'unknown'}: {messages.strip().partition(chr(10))[0] or f'status {code}'}"
