"""Some frames of a video file, each decoded no sooner than it is asked for: whoever needs no more stops the decoding.

How many frames the file has is taken from its packets (nothing is decoded for that), and only the end of the decoding
can tell whether that was right: `is_sound` says what is known.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from preprocessing.media.extraction import DEFAULT_LIMITS, Extraction, Limits
from preprocessing.media.frame_stream import FrameStream
from preprocessing.media.sampled import Rule
from preprocessing.media.seeking.packets import read_packets
from preprocessing.schema import MIN_FRAMES, ExtractionSpec


class ArrivingFrames:
    """JPEGs by their frames' indices, as packing writes them. Leaving the `with` block ends the decoding.

    ffmpeg decodes in the order of time and ahead by no more than what the pipe between the processes holds.
    """

    def __init__(
        self,
        path: Path | str,
        spec: ExtractionSpec,
        rule: Rule,
        *,
        limits: Limits = DEFAULT_LIMITS,
        stop: threading.Event | None = None,
    ) -> None:
        """`rule` says which frames of so many can be asked for. Setting `stop` in another thread ends it."""
        self._jpegs: dict[int, bytes] = {}
        self._ended = False
        packets = len(read_packets(str(path), limits=limits, stop=stop).stamps)
        self.num_frames = min(packets, spec.max_frames or packets)
        """As many as the file has packets."""
        self._wanted: Sequence[int] = rule(self.num_frames) if self.num_frames else []
        self._stream = FrameStream(str(path), spec, only=self._wanted, limits=limits, stop=stop)

    @staticmethod
    def fits(path: Path | str, spec: ExtractionSpec) -> bool:
        """Can frames of this source be taken one by one? Not of a folder or a pipe, nor at another rate."""
        is_other = os.path.exists(path) and not os.path.isfile(path)
        return not is_other and spec.profile == "clean" and spec.fps is None

    def __enter__(self) -> Self:
        self._stream.__enter__()
        self._arriving: Iterator[bytes] = iter(self._stream)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.__exit__(kind, value, trace)

    def __getitem__(self, index: int) -> bytes:
        """The JPEG of a frame that the rule asks for. Raises LookupError if the file ends before it."""
        while index not in self._jpegs:
            jpeg = next(self._arriving, None)
            if jpeg is None:
                self._ended = True
                raise LookupError(f"the file ends before frame {index}")
            self._jpegs[self._wanted[len(self._jpegs)]] = jpeg
        return self._jpegs[index]

    def read_to_the_end(self) -> None:
        """Decode what is left of the file, to know that it is sound."""
        for _ in self._arriving:
            pass
        self._ended = True

    @property
    def is_sound(self) -> bool:
        """Is nothing known that speaks against these frames: errors, frames of another shape, another number?"""
        stream, result = self._stream, self._stream.result
        if not self._ended:
            return self.num_frames >= MIN_FRAMES and not stream.num_errors and not stream.reconfigured
        return result.status == "ok" and stream.count == self.num_frames >= MIN_FRAMES and not stream.reconfigured

    @property
    def result(self) -> Extraction:
        """What is known of the file: how its decoding ended, or that it was stopped while it was sound."""
        result = self._stream.result
        return result if self._ended else replace(result, status="ok", error="", num_frames=self.num_frames)
