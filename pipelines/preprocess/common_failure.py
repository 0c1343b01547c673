"""Notices that an extraction cannot succeed: all clips so far failed for one and the same reason."""

from __future__ import annotations

import re

import pyarrow.parquet as pq

from preprocessing.shards.record import ShardRecord
from preprocessing.shards.storage import Store

LEAST_CLIPS = 8
"""So many clips have to fail alike: fewer may be a coincidence."""
_OF_THE_FILE = ("probe_failed", "decode_failed")


class CommonFailure:
    """Collects why clips failed, shard by shard, until one of them did not."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reasons: dict[str, str] = {}
        self._num_clips = 0
        self._is_over = False

    def add(self, record: ShardRecord) -> str:
        """Look at a finished shard; the reason that all clips so far have in common, empty if there is none."""
        if self._is_over or set(record.statuses) - set(_OF_THE_FILE):
            self._is_over = True
            return ""
        with self._store.open(f"{record.name}.parquet") as file:
            rows = pq.read_table(file, columns=["status", "error"]).to_pylist()
        for row in rows:
            # Addresses in memory, sizes and counts differ from clip to clip.
            self._reasons.setdefault(re.sub(r"\d+", "0", f"{row['status']}: {row['error']}"), row["error"])
        self._num_clips += len(rows)
        self._is_over = len(self._reasons) > 1
        if self._is_over or self._num_clips < LEAST_CLIPS:
            return ""
        (reason,) = self._reasons.values()
        return f"all of the first {self._num_clips} clips failed alike: {reason}"
