"""Memory in which a data loader's worker hands over frames: shared with the process that reads them, and used again.

The system clears new memory page by page when it is first written, which costs a worker a tenth of its time. So it
keeps what it has shared. Behind the frames stands a mark that the reading process takes away when nothing there holds
them any more: only then are they written again.
"""

from __future__ import annotations

import weakref

import numpy as np
import torch
from torch import Tensor

_MOST_KEPT = 8
"""Of one worker: those that wait, those in use and those being made, each for glances and for focus frames."""


class SharedFrames:
    """The shared memory of one worker."""

    def __init__(self) -> None:
        self._kept: list[Tensor] = []

    def take(self, num_bytes: int) -> Tensor:
        """Memory that nobody reads, uint8 (n,), with any content."""
        free = [memory for memory in self._kept if len(memory) > num_bytes and not memory[-1]]
        memory = min(free, key=len) if free else _new(num_bytes + 1)
        if not free and len(self._kept) < _MOST_KEPT:
            self._kept.append(memory)
        memory[-1] = 1
        return memory[:num_bytes]

    def let_go(self) -> None:
        """Keep nothing: each piece is given back as soon as nobody reads it."""
        self._kept.clear()


def receive(frames: Tensor) -> Tensor:
    """The same frames, in the process that reads them: when the last tensor that shows any of them is gone, the worker
    may use their memory again."""
    memory = _whole(frames.untyped_storage())
    shown = memory[:-1].numpy()
    weakref.finalize(shown, _take_mark_away, memory[-1:].numpy()).atexit = False
    owned = torch.from_numpy(shown)  # a storage of its own: it holds `shown` as long as any tensor holds it
    return owned.as_strided(frames.shape, frames.stride(), frames.storage_offset())


def _new(num_bytes: int) -> Tensor:
    return _whole(torch.UntypedStorage._new_shared(num_bytes, device="cpu"))  # as torch's own collate does


def _whole(storage: torch.UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(storage)


def _take_mark_away(mark: np.ndarray) -> None:
    mark[0] = 0
