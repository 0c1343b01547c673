"""Whose turn a stage is: of several processes, on one machine or many, that need it at once, one trains it.

A claim is a file beside the results that its holder touches every few seconds. It ends with its holder: at once if that
was a process of the same machine, else when nobody has touched it for LEASE_S on the clock of whoever waits, so that
machines need not agree on the time. All that the storage has to offer is that of several machines that make a file with
O_EXCL one succeeds (any POSIX file system, NFS since version 3).
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
"""After so long without a sign of life a claim on another machine is void."""
TURN_S = 20.0
"""How long the workers of a group wait before they ask each other again: below any time-out of a process group."""


class ClaimLostError(RuntimeError):
    """This process was silent for so long that another one took its stage over."""


class Claim:
    """A named claim below `runs`. Taken by one process; a group's rank 0 takes it for the group (`holding`)."""

    def __init__(self, runs: Path, name: str) -> None:
        self.name = name
        folder = runs / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        self._lease = SoftFileLease(folder / f"{name}.lock", lease_duration=LEASE_S, thread_local=False)

    def acquire(self, timeout_s: float = 0) -> bool:
        """Take the claim, or return False if somebody else has it for all of `timeout_s`."""
        try:
            self._lease.acquire(timeout=timeout_s, poll_interval=0.1)
        except Timeout:
            return False
        return True

    def take(self) -> bool:
        """Take the claim unless whoever has it is alive, which of another machine is known after LEASE_S."""
        if self.acquire(0.5):
            return True
        owner = self._lease.owner
        if owner is not None and owner.hostname == socket.gethostname():
            return False
        log.info("%s is claimed by %s: waiting %.0f s to see whether it lives", self.name, self.holder, LEASE_S)
        return self.acquire(LEASE_S + 5)

    def release(self) -> None:
        """Let go of the claim."""
        self._lease.release()

    def check(self) -> None:
        """Raise ClaimLostError if somebody else has taken it."""
        if self._lease.compromise is not None:
            raise ClaimLostError(f"{self.name} was taken over by another process: {self._lease.compromise.reason}")

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
def holding(claim: Claim) -> Iterator[Claim]:
    """Hold a claim, waiting for it as long as it takes. In a group rank 0 holds it, and the others wait with it."""
    told = False
    while not distributed.agree(distributed.rank() == 0 and claim.acquire(TURN_S if told else 0.5)):
        if not told and distributed.rank() == 0:
            log.info("%s is being trained by %s: waiting for it", claim.name, claim.holder or "another process")
        told = True
    try:
        yield claim
    finally:
        if distributed.rank() == 0:
            claim.release()
