"""Some frames of a clip: a file and a rule go in, the JPEGs that the rule asks for come out, as packing writes them.

The rule needs the number of frames, which nothing but decoding tells for sure. So the number is guessed by counting the
packets of the file (nothing is decoded). Of a long file only the stretches before wanted frames are then decoded, where
that is proved to give the same (`seek_samples.py`). Otherwise one ffmpeg decodes all frames, counts them, and encodes
those that are asked for; where the guess was wrong (hidden frames) it decodes once more, with the number that it
counted. A damaged file goes through packing's own command, twice: a shorter command could lose other frames of it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

from preprocessing.media.extraction import DEFAULT_LIMITS, Extraction, Limits
from preprocessing.media.frame_stream import FrameStream
from preprocessing.media.frames import Frames, open_frames
from preprocessing.media.seeking.packets import read_packets
from preprocessing.media.seeking.seek_samples import seek_samples
from preprocessing.schema import MIN_FRAMES, USABLE, ExtractionSpec

Rule = Callable[[int], Sequence[int]]
"""Number of frames -> ascending indices of those that are wanted, each once."""


@dataclass(frozen=True, slots=True)
class SampledClip(Sequence[bytes]):
    """A clip as a sequence of all its JPEGs, of which only the sampled ones are there (KeyError for the others)."""

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
    start_s: float | None = None,
    end_s: float | None = None,
    whole: bool = False,
    threads: int = 1,
    limits: Limits = DEFAULT_LIMITS,
    stop: threading.Event | None = None,
) -> SampledClip:
    """The frames of a video file, cut to a time range, or of a folder of JPEGs, that `rule` asks for. Memory is that of
    these frames.

    Each is byte for byte the one that `open_frames` gives of a sound file; what lies between them may not be decoded,
    and damage there stays unknown, but with `whole` everything is decoded. Nothing about the file raises: `.result`
    says how it ended. `threads` decode at once. Setting `stop` in another thread ends it with the error `stopped`.
    """
    path = Path(path)
    if not (os.path.isfile(path) or os.path.isdir(path)):  # a pipe, for instance, that nobody may ever write to
        is_there = os.path.exists(path)
        return SampledClip({}, Extraction("missing", "it is no file" if is_there else "there is no such file"))
    is_cut = start_s is not None or end_s is not None
    deadline = time.monotonic() + limits.timeout_s

    def left() -> Limits:
        """All passes together may take no longer than one."""
        return replace(limits, timeout_s=max(deadline - time.monotonic(), 0.0))

    def extract_all() -> Frames:
        return open_frames(path, spec, start_s=start_s, end_s=end_s, limits=left(), stop=stop)

    def extract(wanted: Sequence[int]) -> FrameStream:
        return FrameStream(str(path), spec, only=wanted, threads=threads, limits=left(), stop=stop)

    if os.path.isdir(path) or spec.profile != "clean":  # in `paper` each frame's quality depends on those before it
        clip = _sample_all(extract_all, rule)
    elif is_cut:  # which is sought in its file, if all of its frames are encoded
        packets = read_packets(str(path), limits=left(), stop=stop)
        clip = _sample_all(extract_all, rule, 0 if spec.fps else packets.count(start_s or 0.0, end_s))
    else:
        guess, found = 0, None
        if spec.fps is None:
            packets = read_packets(str(path), limits=left(), stop=stop)
            guess = min(len(packets.stamps), spec.max_frames or len(packets.stamps))
            wanted = list(rule(guess)) if guess >= MIN_FRAMES else []
            if not whole:
                found = seek_samples(str(path), spec, packets, wanted, threads=threads, limits=left(), stop=stop)
        selected = SampledClip(*found) if found else _sample_selected(guess, extract, rule)
        clip = selected or _sample_all(extract_all, rule)
    result = clip.result
    if result.status == "timeout":
        result = replace(result, error=f"no end after {limits.timeout_s:g} s and {result.num_frames} frames")
    if result.status in USABLE and result.num_frames < MIN_FRAMES:
        error = f"{result.num_frames} frames, {MIN_FRAMES} are the least"
        return SampledClip({}, replace(result, status="too_short", error=error, num_frames=0))
    return clip if result.status in USABLE else SampledClip({}, replace(result, num_frames=0))


_MOST_PASSES = 3
"""Over a source whose number of frames is not the one that was guessed, or that changes."""


def _sample_selected(guess: int, extract: Callable[[Sequence[int]], FrameStream], rule: Rule) -> SampledClip | None:
    """Encode only the frames that are asked for; None for a file where that might give other frames than packing."""
    for _ in range(_MOST_PASSES):
        wanted = list(rule(guess)) if guess else []
        with extract(wanted) as stream:
            jpegs = list(stream)
        result = stream.result
        if result.status not in USABLE:
            return SampledClip({}, result)
        if stream.reconfigured or result.status == "damaged":
            return None
        if stream.count == guess:
            return SampledClip(dict(zip(wanted, jpegs, strict=True)), result)
        guess = stream.count
    return None


def _sample_all(extract: Callable[[], Frames], rule: Rule, guess: int = 0) -> SampledClip:
    """Encode all frames and keep those that are asked for; once more where their number was not the guessed one."""
    for _ in range(_MOST_PASSES):
        wanted, count, jpegs = set(rule(guess) if guess else ()), 0, dict[int, bytes]()
        with extract() as stream:
            for jpeg in stream:
                if count in wanted:
                    jpegs[count] = jpeg
                count += 1
        if stream.result.status not in USABLE or count == guess:
            return SampledClip(jpegs, stream.result)
        guess = count
    changes = replace(stream.result, status="decode_failed", error="its number of frames changes while it is read")
    return SampledClip({}, changes)
