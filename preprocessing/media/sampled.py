"""Only some frames of a video: a file and a rule go in, the JPEGs that the rule picks come out, as packing makes them.

The rule needs the number of frames, which nothing but decoding tells for sure. So the number is guessed by counting the
packets of the file (nothing is decoded), and one ffmpeg then decodes all frames, counts them, and encodes the picked
ones. Where the guess was wrong (hidden frames) it decodes once more, with the number that it found. A damaged file goes
through packing's own command, twice: which of its frames that loses is not for a shorter command to foretell.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

from preprocessing.media.ffmpeg import (
    DEFAULT_LIMITS,
    Extraction,
    FrameStream,
    Limits,
    extract_frames,
    extraction_argv,
    packets_argv,
)
from preprocessing.media.frame_folder import FrameFolder
from preprocessing.schema import MIN_FRAMES, USABLE, ExtractionSpec

Rule = Callable[[int], Sequence[int]]
"""Number of frames -> ascending indices of those that are wanted, each once."""


@dataclass(frozen=True, slots=True)
class SampledClip(Sequence[bytes]):
    """A clip as a sequence of all its JPEGs, of which only the picked ones are there (KeyError for the others)."""

    jpegs: dict[int, bytes]
    result: Extraction
    """What the index would say of the clip, had it been packed; without frames the status says why."""

    def __len__(self) -> int:
        return self.result.num_frames

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            raise TypeError("only single frames")
        if not 0 <= index < len(self):
            raise IndexError(index)  # ends an iteration
        return self.jpegs[index]


def sample_frames(
    path: Path | str,
    spec: ExtractionSpec,
    rule: Rule,
    *,
    limits: Limits = DEFAULT_LIMITS,
    stop: threading.Event | None = None,
) -> SampledClip:
    """The frames of a video file, or of a folder of JPEGs, that `rule` picks. Memory is that of these frames.

    Each is byte for byte the one that `extract_frames` gives. Nothing about the file raises: `.result` says how it
    ended. Setting `stop` in another thread ends it with the error `stopped`.
    """
    if Path(path).is_dir():
        clip = _kept(lambda: FrameFolder(Path(path), spec), rule)
    elif spec.profile != "clean":  # each frame's quality depends on those before it
        clip = _kept(lambda: extract_frames(path, spec, limits=limits, stop=stop), rule)
    else:
        clip = _picked(path, spec, rule, limits, stop)
    result = clip.result
    if result.status in USABLE and result.num_frames < MIN_FRAMES:
        error = f"{result.num_frames} frames, {MIN_FRAMES} are the least"
        return SampledClip({}, replace(result, status="too_short", error=error, num_frames=0))
    return clip if result.status in USABLE else SampledClip({}, replace(result, num_frames=0))


def _picked(
    path: Path | str, spec: ExtractionSpec, rule: Rule, limits: Limits, stop: threading.Event | None
) -> SampledClip:
    def run(argv: list[str]) -> tuple[FrameStream, list[bytes]]:
        with FrameStream(argv, spec, limits=limits, stop=stop) as stream:
            return stream, list(stream)

    guess = 0
    if spec.fps is None:
        packets, _ = run(packets_argv(str(path)))
        guess = min(packets.count, spec.max_frames or packets.count)
    while True:
        wanted = list(rule(guess)) if guess else []
        stream, jpegs = run(extraction_argv(str(path), spec, only=wanted))
        result = stream.result
        if result.status not in USABLE:
            return SampledClip({}, result)
        if stream.reconfigured or result.status == "damaged":
            return _kept(lambda: extract_frames(path, spec, limits=limits, stop=stop), rule)
        if stream.count == guess:
            return SampledClip(dict(zip(wanted, jpegs, strict=True)), result)
        guess = stream.count


def _kept(start: Callable[[], FrameStream | FrameFolder], rule: Rule) -> SampledClip:
    """All frames made, twice: to count them, and to keep the picked ones."""
    with start() as counting:
        count = sum(1 for _ in counting)
    if counting.result.status not in USABLE:
        return SampledClip({}, counting.result)
    wanted = set(rule(count))
    with start() as stream:
        jpegs = {index: jpeg for index, jpeg in enumerate(stream) if index in wanted}
    return SampledClip(jpegs, stream.result)
