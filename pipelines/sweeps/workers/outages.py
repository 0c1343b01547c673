"""Outages in a worker of a sweep: an error of its own, for which the trial is started again."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

from pipelines.logs import in_a_line
from pipelines.tracking.outages import is_outage

log = logging.getLogger(__name__)

PAUSE_S = 30.0
"""How long a worker waits after an outage before it is started again."""


class OutageError(RuntimeError):
    """MLflow or the storage was out of reach: the trial is worth another start."""


@contextlib.contextmanager
def convert_outages() -> Iterator[None]:
    """Raise an error that may be gone a minute later as OutageError, after a pause; other errors as they are."""
    try:
        yield
    except OutageError:
        raise
    except Exception as error:
        if not is_outage(error):
            raise
        log.error("out of reach: %s", error)
        time.sleep(PAUSE_S)
        raise OutageError(in_a_line(error)[:1000]) from None
