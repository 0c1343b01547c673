"""Reports of epochs on their way to MLflow and Ray Tune: a thread passes them on, so that training need not wait.

A report costs the training loop the time to put it into a queue, not a round trip to a server. The thread passes on as
many at once as have gathered meanwhile, in order.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from types import TracebackType

from adafocus.training.reports import EpochReport

log = logging.getLogger(__name__)

Sink = Callable[[Sequence[EpochReport]], None]
"""A receiver of reports. What it raises ends the training at its next report."""


class EpochReporter:
    """A queue of reports, and the thread that passes them on to all sinks while the context is open.

    Leaving the context, by an error too, waits until all have been passed on. What a sink raises (also SystemExit, by
    which Tune ends a trial) is raised by the next call, or on leaving.
    """

    def __init__(self, *sinks: Sink, ahead: int = 0) -> None:
        """`ahead`: reports that may wait in the queue before the training loop waits too; 0: any number."""
        self._sinks = sinks
        self._queue: queue.Queue[EpochReport | None] = queue.Queue(ahead)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def __call__(self, row: EpochReport) -> None:
        """Add a report to the queue; waits only if that is full."""
        if not self._put(row) and self._error is not None:
            raise self._error

    def __enter__(self) -> EpochReporter:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._put(None)
        self._thread.join()
        if self._error is not None and self._error is not error:
            if error is None:
                raise self._error
            log.error("the last reports were lost: %r", self._error)

    def _put(self, row: EpochReport | None) -> bool:
        """Add to the queue; False if its thread has ended, because a sink has raised."""
        while self._error is None:
            try:
                self._queue.put(row, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def _run(self) -> None:
        ended = False
        while not ended:
            rows = [self._queue.get()]
            while not self._queue.empty():
                rows.append(self._queue.get())
            ended = rows[-1] is None
            arrived = [row for row in rows if row is not None]
            try:
                for sink in self._sinks if arrived else ():
                    sink(arrived)
            except BaseException as caught:
                self._error = caught
                return
