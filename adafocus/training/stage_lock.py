"""A lock on a stage: of several processes, on one machine or many, that need it at once, one trains it.

The lock is a file beside the results that its holder touches every few seconds. It ends with its holder: at once if
that was a process of the same machine, else when nobody has touched it for LEASE_S on the clock of whoever waits, so
that machines need not agree on the time. All that the storage has to offer is that of several machines that make a file
with O_EXCL one succeeds (any POSIX file system, NFS since version 3).
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import SoftFileLease, Timeout

from adafocus import distributed

log = logging.getLogger(__name__)

LEASE_S = 60.0
"""A lock that a process of another machine holds is void after so long without a sign of life."""
POLL_S = 20.0
"""How long the workers of a group wait for a lock before they talk to each other: below any time-out of theirs."""


class StageLockLostError(RuntimeError):
    """Another process has taken the stage over, because this one was silent for so long."""


class StageLock:
    """A named lock below `runs`. Taken by one process; a group's rank 0 takes it for the group (`holding`)."""

    def __init__(self, runs: Path, name: str) -> None:
        self.name = name
        folder = runs / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        self._lease = SoftFileLease(folder / f"{name}.lock", lease_duration=LEASE_S, thread_local=False)

    def acquire(self, timeout_s: float = 0) -> bool:
        """Take the lock, or return False if somebody else has it for all of `timeout_s`."""
        try:
            self._lease.acquire(timeout=timeout_s, poll_interval=0.1)
        except Timeout:
            return False
        return True

    def take(self) -> bool:
        """Take the lock unless whoever has it is alive, which of another machine is known after LEASE_S."""
        if self.acquire(0.5):
            return True
        owner = self._lease.owner
        if owner is not None and owner.hostname == socket.gethostname():
            return False
        log.info("%s is locked by %s: waiting %.0f s to see whether it lives", self.name, self.holder, LEASE_S)
        return self.acquire(LEASE_S + 5)

    def release(self) -> None:
        """Let go of the lock."""
        self._lease.release()

    def check(self) -> None:
        """Raise StageLockLostError if somebody else has taken it."""
        if self._lease.compromise is not None:
            raise StageLockLostError(f"{self.name} was taken over by another process: {self._lease.compromise.reason}")

    @property
    def holder(self) -> str:
        """Who has it, in words; empty if nobody does, or a machine that has been silent for very long."""
        owner = self._lease.owner
        if owner is None or self._silent_s() > 10 * LEASE_S:  # clocks may differ, but not so much
            return ""
        if self.acquire(0.3):  # left behind by a process that died
            self.release()
            return ""
        return f"process {owner.pid} on {owner.hostname}"

    def _silent_s(self) -> float:
        with contextlib.suppress(OSError):
            return time.time() - Path(self._lease.lock_file).stat().st_mtime
        return 0.0


@contextlib.contextmanager
def holding(lock: StageLock) -> Iterator[StageLock]:
    """Hold a lock, waiting for it as long as it takes. In a group rank 0 holds it, and the others wait with it."""
    waited = False
    while not distributed.agree(distributed.rank() == 0 and lock.acquire(POLL_S if waited else 0.5)):
        if not waited and distributed.rank() == 0:
            log.info("%s is being trained by %s: waiting for it", lock.name, lock.holder or "another process")
        waited = True
    try:
        yield lock
    finally:
        if distributed.rank() == 0:
            lock.release()
