"""Joining or starting Ray, in one place: local by default, a cluster by address."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

from preprocessing.schema import UserError

os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # lines of different trials look alike
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")

import ray


@contextlib.contextmanager
def ray_session(address: str | None, *, dashboard: bool = False, worker_logs: bool = False) -> Iterator[None]:
    """A Ray that is there already is used and left; one that is started or joined here is left at the end.

    A local one listens on 127.0.0.1. `dashboard` starts Ray's dashboard with it, which releases the workers of stopped
    trials; `worker_logs` shows what workers log. Raises UserError if there is no cluster at `address`.
    """
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(
            address=address,
            include_dashboard=dashboard if address is None else None,
            log_to_driver=worker_logs,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except ConnectionError as error:
        raise UserError(f"no Ray cluster at {address!r}: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()
