"""How far an extraction is: clips, failures and frames so far, in words."""

from __future__ import annotations

import time

from preprocessing.schema import USABLE
from preprocessing.shards.record import ShardRecord


class Tally:
    """Counts what the finished shards hold."""

    def __init__(self, num_clips: int) -> None:
        self._num_clips, self._started = num_clips, time.monotonic()
        self._done = self._failed = self._frames = 0

    def add(self, record: ShardRecord) -> str:
        """Count a finished shard; how far the work is by now."""
        self._done += record.num_clips
        self._failed += sum(number for status, number in record.statuses.items() if status not in USABLE)
        self._frames += record.num_frames
        elapsed_s = time.monotonic() - self._started
        return (
            f"{self._done}/{self._num_clips} clips, {self._failed} failed, "
            f"{self._done / elapsed_s:.1f} clips/s, {self._frames / elapsed_s:.0f} frames/s"
        )
