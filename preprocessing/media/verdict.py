"""The verdict on a clip: how ffmpeg ended and what it said go in, a status and the reason in words come out."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from preprocessing.ffmpeg.log import FFmpegLog
from preprocessing.media.extraction import Limits
from preprocessing.schema import Status

_WITHOUT_LENGTH = ("mpegts", "mpeg")
"""Containers that state no length: what ffmpeg shows is the last time stamp less the first, wherever a clock jumps."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How the reading of a clip ended."""

    log: FFmpegLog
    limits: Limits
    count: int
    """Number of frames."""
    is_capped: bool
    """Are these as many as were asked for at most?"""
    start_s: float
    end_s: float | None
    ended_by: str
    returncode: int | None
    refused: str
    """Why the rest of the output was not read."""
    pixels: str = ""
    """How the shape of pixels changes on the way, in words."""


def judge(end: Ending) -> tuple[Status, str]:
    """Status of the clip, and the reason in words."""
    log, code = end.log, end.returncode
    messages = "; ".join(log.errors) + (f" ({log.num_errors} messages)" if log.num_errors > 3 else "")
    if end.ended_by == "timeout":
        return "timeout", f"no end after {end.limits.timeout_s:g} s and {end.count} frames"
    if end.ended_by == "stop":
        return "decode_failed", "stopped"
    if end.refused:
        return "decode_failed", end.refused
    if code in (-signal.SIGKILL, -signal.SIGTERM):
        return "decode_failed", f"ffmpeg was killed by {signal.Signals(-code).name} (out of memory?)"
    if code is not None and code < 0 and not log.opened:
        return "probe_failed", f"ffmpeg crashed ({signal.Signals(-code).name})"
    if not log.opened:
        return "probe_failed", messages or "ffmpeg cannot open it"
    if log.video is None:
        return "probe_failed", "there is no video stream in it"
    if end.count == 0:
        return "decode_failed", _why_no_frames(end, messages)
    changes = []
    if log.recoloured:
        changes.append(f"its colours change on the way, {log.recoloured}, and all frames are shown in the first ones")
    if end.pixels:
        changes.append(f"its pixels change their shape on the way, {end.pixels}, and all are shown in the first one")
    if log.num_errors:
        return "damaged", "; ".join([messages, *changes])
    if code != 0:
        return "damaged", f"ffmpeg ended with status {code}"
    if changes:
        return "damaged", "; ".join(changes)
    return ("damaged", early) if (early := _why_early(end)) else ("ok", "")


def _why_no_frames(end: Ending, messages: str) -> str:
    duration_s = end.log.duration_s
    if duration_s is not None and end.start_s >= duration_s:
        return f"the range starts at {end.start_s:g} s, the file ends at {duration_s:g} s"
    if not messages and (end.start_s or end.end_s is not None):
        until = "the end" if end.end_s is None else f"{end.end_s:g} s"
        return f"no frame is shown from {end.start_s:g} s to {until}"
    return messages or "no frame could be decoded, or its list of edits hides them all"


def _why_early(end: Ending) -> str:
    """A container that was cut off without the decoder noticing: its header promises more time than came out."""
    log = end.log
    if log.duration_s is None or log.out_time_s is None or end.is_capped:
        return ""
    if log.container in _WITHOUT_LENGTH:
        return ""
    # Some containers state the time of their end, others their length: where the clock starts late, the shorter counts.
    duration_s = log.duration_s - max(log.start_s, 0.0)
    expected_s = min(end.end_s or duration_s, duration_s) - end.start_s
    if log.out_time_s >= 0.8 * expected_s - 1.0:
        return ""
    return f"frames end after {log.out_time_s:.1f} s of {expected_s:.1f} s"
