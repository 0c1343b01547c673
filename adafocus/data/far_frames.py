"""Frames of shards on object storage: byte ranges go in, JPEG bytes come out.

A request costs tens of milliseconds, however little it asks for. So ranges that lie close together are joined into one
request, requests are made side by side, and one that fails is made again after a while.
"""

from __future__ import annotations

import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa

from preprocessing.shards.storage import Store

SIDE_BY_SIDE = 16
"""Requests at once, of one process."""
GAP = 512 << 10
"""Bytes that nobody wants are read if they are no more than that between two frames: a request takes longer."""
MOST_JOINED = 4 << 20
"""Bytes of one request at most, so that those at once take no more memory than SIDE_BY_SIDE times that."""
WAITS_S = (0.2, 0.8, 3.2)
"""Pauses before a request that has failed is made again; each is up to half as long again, by chance."""
_OPEN_SHARDS = 4096
"""Shards whose size is remembered: asking for it is a request too."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class FramePlace:
    """Where a frame's JPEG lies in its shard, in bytes."""

    offset: int
    size: int


def joined(places: Sequence[FramePlace], gap: int = GAP, most: int = MOST_JOINED) -> Iterator[Sequence[FramePlace]]:
    """Runs of frames, in ascending order, to be read by one request each."""
    first = 0
    for number in range(1, len(places) + 1):
        if number < len(places):
            before, each = places[number - 1], places[number]
            length = each.offset + each.size - places[first].offset
            if 0 <= each.offset - before.offset - before.size <= gap and length <= most:
                continue
        yield places[first:number]
        first = number


class FarFrames:
    """Reads frames of the shards in a store. Picklable; each process makes its own connections."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._files: OrderedDict[str, pa.NativeFile] = OrderedDict()
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def __reduce__(self) -> tuple[type[FarFrames], tuple[Store]]:
        return FarFrames, (self._store,)

    def read(self, clips: Sequence[tuple[str, Sequence[FramePlace]]]) -> Iterator[list[np.ndarray]]:
        """Of each clip, given as its shard and its frames' places, the bytes that are there, uint8 (n,).

        They are fewer than were asked for where the shard ends. Raises OSError, at the clip that cannot be read.
        """
        if self._threads is None:
            self._threads = ThreadPoolExecutor(SIDE_BY_SIDE, "fetch")
        requests = [[self._threads.submit(self._read, shard, run) for run in joined(places)] for shard, places in clips]
        try:
            for runs in requests:
                yield [data for run in runs for data in run.result()]
        finally:
            for request in (request for runs in requests for request in runs):
                request.cancel()

    def _read(self, shard: str, run: Sequence[FramePlace]) -> list[np.ndarray]:
        start, end = run[0].offset, run[-1].offset + run[-1].size
        data = self._persist(shard, lambda: self._file(shard).read_at(end - start, start))
        view = memoryview(data)
        parts = [view[place.offset - start :][: place.size] for place in run]
        return [np.frombuffer(bytearray(part), np.uint8) for part in parts]

    def _persist(self, shard: str, request: Callable[[], Result]) -> Result:
        """Make a request, again and again if it fails; what is missing is missed at once."""
        for wait_s in WAITS_S:
            try:
                return request()
            except FileNotFoundError:
                raise
            except OSError:
                with self._lock:
                    self._files.pop(shard, None)
                time.sleep(wait_s * (1 + random.random() / 2))
        return request()

    def _file(self, shard: str) -> pa.NativeFile:
        with self._lock:
            if shard in self._files:
                self._files.move_to_end(shard)
                return self._files[shard]
        file = self._store.open(shard)
        with self._lock:
            self._files[shard] = file
            if len(self._files) > _OPEN_SHARDS:
                self._files.popitem(last=False)
        return file
