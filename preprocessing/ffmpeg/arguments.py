"""Command lines of ffmpeg, built with ffmpeg-python, which is imported where one is made: reading packed frames needs
none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from preprocessing.ffmpeg.filters import ENCODER_TIME_BASE, PLAIN, SHOW, Picture, count_filters, frame_filters
from preprocessing.ffmpeg.program import find_ffmpeg
from preprocessing.schema import ExtractionSpec

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif"
"""Demuxers that may open a stranger's file. Playlists and concat scripts, which name other files, are not here."""
MAX_PIXELS = 8192 * 8192
"""A larger picture is refused by the decoder: one frame of it would need hundreds of megabytes."""

_READING = (
    *("-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+verbose", "-filter_threads", "1"),
    # A period longer than any run: only the last report, which holds the time of the last frame, is of use.
    *("-progress", "pipe:2", "-stats_period", "1000000"),
)

_FILE = "file:name"
"""Stands for the file that is read or written."""


def extraction_argv(
    source: str,
    spec: ExtractionSpec,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    only: Sequence[int] | None = None,
    picture: Picture = PLAIN,
    seek_s: float | None = None,
    threads: int = 1,
) -> list[str]:
    """The command that writes the frames of `source` as JPEGs to its standard output.

    `clean` passes every decoded frame through, numbered and not timed where no rate is asked for. `paper` is the
    reference implementation's `ffmpeg -i X -vf scale=-1:360 [-r FPS] image_%05d.jpg`: constant frame rate, default JPEG
    quality. A time range is cut on decoded time stamps, half-open. `only` (of `clean`) encodes the frames with these
    indices alone; a first output then counts all of them. With `seek_s` decoding starts at a key frame before that
    second, and the log says which frames come (`seek.py`).
    """
    import ffmpeg

    shift_s = seek_s or 0.0
    cut = _cut(None if start_s is None else start_s - shift_s, None if end_s is None else end_s - shift_s)
    seeking = {} if seek_s is None else _seek_to(seek_s)
    stream = "0:V:0" if picture.stream is None else f"0:{picture.stream}"
    passed = {"fps_mode": "passthrough"} | ({} if spec.fps else {"enc_time_base": ENCODER_TIME_BASE})
    limit = {"frames:v": spec.max_frames} if spec.max_frames else {}
    output: dict[str, Any] = {"map": stream, "format": "mpjpeg", "vcodec": "mjpeg", "threads": 1}
    if spec.profile == "clean":
        output |= passed | {"q:v": spec.quality}
    elif spec.fps:
        output["r"] = spec.fps
    select = "" if only is None else f"select='{'+'.join(f'eq(n,{index})' for index in only)}'"
    output["vf"] = frame_filters(spec, picture, cut, select, "" if seek_s is None else SHOW)
    file = _input(threads, **seeking)
    outputs = []
    if only is not None:
        output["frames:v"] = len(only)  # ends when it has them; the count goes on
        count = {"map": stream, "format": "null", "vf": count_filters(spec, cut), **passed, **limit}
        outputs.append(file.output("-", an=None, sn=None, dn=None, **count))
    else:
        output |= limit
    if only is None or len(only):
        outputs.append(file.output("pipe:1", an=None, sn=None, dn=None, **output))
    return _reading(ffmpeg.merge_outputs(*outputs), source)


def seek_argv(source: str, spec: ExtractionSpec, picture: Picture, seek_s: float, stamps: Sequence[int]) -> list[str]:
    """The command that starts to decode at a key frame before `seek_s` and writes the frames with these time stamps,
    which count from that second, as `extraction_argv` writes them (in `clean`). The log says which frames come."""
    select = f"select='{'+'.join(f'eq(pts,{stamp})' for stamp in stamps)}'"
    output = {
        "map": "0:V:0" if picture.stream is None else f"0:{picture.stream}",
        "format": "mpjpeg",
        "vcodec": "mjpeg",
        "threads": 1,
        "fps_mode": "passthrough",
        "enc_time_base": ENCODER_TIME_BASE,
        "q:v": spec.quality,
        "frames:v": len(stamps),
        "vf": frame_filters(spec, picture, first=f"{SHOW},{select}"),
    }
    return _reading(_input(**_seek_to(seek_s)).output("pipe:1", an=None, sn=None, dn=None, **output), source)


def packets_argv(source: str, stream: int | None = None) -> list[str]:
    """The command that lists the packets of a video stream, a line each, to its standard output; nothing is decoded."""
    chosen = "0:V:0" if stream is None else f"0:{stream}"
    options = {"map": chosen, "c": "copy", "copyinkf": None, "format": "framecrc", "flush_packets": 0}
    output = _input().output("pipe:1", an=None, sn=None, dn=None, **options)
    return _reading(output, source)


def encoding_argv(path: Path, width: int, height: int, fps: float, crf: int, preset: str) -> list[str]:
    """The command that writes raw RGB frames from its standard input as an H.264 .mp4 file, always the same bytes."""
    import ffmpeg

    exact = {"fflags": "+bitexact", "flags:v": "+bitexact", "map_metadata": -1, "threads": 1}
    codec = {"format": "mp4", "vcodec": "libx264", "pix_fmt": "yuv420p", "movflags": "+faststart"}
    stream = ffmpeg.input("pipe:0", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", r=fps).output(
        _FILE, crf=crf, preset=preset, **codec, **exact
    )
    return [find_ffmpeg(), "-hide_banner", "-loglevel", "error", "-y", *_with_file(stream, path)]


def _cut(start_s: float | None, end_s: float | None) -> str:
    start = "" if start_s is None else f"start={start_s:.6f}:"
    end = "" if end_s is None else f"end={end_s:.6f}:"
    return f"trim={(start + end).rstrip(':')}" if start or end else ""


def _reading(output: Any, source: str) -> list[str]:
    """The command that reads `source`."""
    return [find_ffmpeg(), *_READING, *_with_file(output, source)]


def _with_file(output: Any, path: Path | str) -> list[str]:
    """Arguments for ffmpeg. The file's name is put in last, for it need not be text, as ffmpeg-python wants it."""
    return [f"file:{path}" if word == _FILE else word for word in output.get_args()]


def _seek_to(seek_s: float) -> dict[str, Any]:
    return {"ss": f"{seek_s:.2f}", "noaccurate_seek": None}


def _input(threads: int = 1, **more: Any) -> Any:
    """A stranger's file, opened with care."""
    import ffmpeg

    return ffmpeg.input(
        _FILE,
        threads=threads,
        protocol_whitelist="file",
        format_whitelist=FORMATS,
        max_pixels=MAX_PIXELS,
        **more,
    )
