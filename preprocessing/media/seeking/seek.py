"""Seeks that prove themselves: a decoder starts at a key frame before what is wanted, instead of at the beginning.

Decoding that starts at a key frame gives the frames that are shown after it as a decoding of the whole file does, and
the time stamps say which ones these are. A seek counts only if the first frame that comes out is a key frame that is
shown no later than what is wanted, and if the stamps of all that follow rise. Formats that keep exact stamps are
sought in; the others, and whatever lacks the proof, are decoded from the beginning.

ffmpeg counts time from the second that was asked for. That is a multiple of a quarter here, and so are the ticks of
the clock, so that the shift is exact to the tick.
"""

from __future__ import annotations

import math

from preprocessing.ffmpeg.log import FFmpegLog

LEAST_START_S = 1.0
"""Before that a seek saves nothing."""
_CONTAINERS = ("mov,", "matroska,")
_STEPS_PER_S = 4
_REORDERED_S = 0.14
"""ffmpeg seeks up to so much earlier than it is asked to, for the sake of frames that are stored out of order."""


def seek_points(key_s: float) -> list[float]:
    """Seconds to seek to, one try after the other, to land at a key frame that may be shown at `key_s`, or before."""
    near = math.ceil((key_s + _REORDERED_S) * _STEPS_PER_S) / _STEPS_PER_S
    safe = math.floor((key_s - _REORDERED_S) * _STEPS_PER_S) / _STEPS_PER_S
    return [near, max(safe, 0.0)]


def is_exact(ticks_per_s: int | None) -> bool:
    """Is a shift by any of these seconds a whole number of ticks?"""
    return ticks_per_s is not None and ticks_per_s > 0 and ticks_per_s % _STEPS_PER_S == 0


def is_sought_in(container: str) -> bool:
    """Does the format keep time stamps that tell exactly where a seek has landed?"""
    return container.startswith(_CONTAINERS)


def why_unproven(log: FFmpegLog, wanted_s: float) -> str:
    """What is missing to prove that the frames from `wanted_s` on are all there, empty if nothing is.

    `wanted_s` counts as the log does, from the second that was asked for.
    """
    if log.ticks_per_s is None or not is_sought_in(log.container) or not is_exact(log.ticks_per_s):
        return "the format has no exact time stamps"
    if not log.shown or log.num_errors:
        return "no frame, or one with errors"
    first, is_key = log.shown[0]
    if first is None or not is_key or first > round(wanted_s * log.ticks_per_s):
        return "it does not begin with a key frame before what is wanted"
    return "" if log.is_rising else "time stamps do not rise"
