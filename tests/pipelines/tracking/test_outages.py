"""What may work a minute later, and what will not: real errors of disks, databases and servers that are not there."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, TEMPORARILY_UNAVAILABLE

from adafocus.divergence import DivergedError
from pipelines.sweeps.workers import outages
from pipelines.sweeps.workers.outages import OutageError, convert_outages
from pipelines.tracking.client import Tracker
from pipelines.tracking.outages import is_outage
from preprocessing.schema import UserError


def caught(work: Callable[[], object]) -> Exception:
    try:
        work()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def of_mlflow(cause: Exception, code: int = TEMPORARILY_UNAVAILABLE) -> Exception:
    """As MLflow raises what its database raised."""

    def work() -> None:
        raise MlflowException(str(cause), error_code=code) from cause

    return caught(work)


def test_a_server_that_does_not_answer_is_an_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    error = caught(lambda: Tracker(tmp_path, "http://127.0.0.1:1"))
    assert isinstance(error, UserError) and is_outage(error)


def test_a_locked_database_is_an_outage_and_a_full_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with sqlite3.connect(path, isolation_level=None) as holder:
        holder.execute("CREATE TABLE t (x)")
        holder.execute("BEGIN EXCLUSIVE")
        locked = caught(lambda: sqlite3.connect(path, timeout=0).execute("DELETE FROM t"))
        holder.execute("ROLLBACK")
        holder.execute("PRAGMA max_page_count=3")
        full = caught(lambda: holder.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 100))
    assert "locked" in str(locked) and "full" in str(full)
    assert is_outage(of_mlflow(locked)) and not is_outage(of_mlflow(full))
    assert not is_outage(of_mlflow(locked, BAD_REQUEST))


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OSError(errno.EIO, "input/output error"), True),
        (OSError(errno.ESTALE, "stale file handle"), True),
        (ConnectionResetError(errno.ECONNRESET, "reset"), True),
        (TimeoutError("the storage does not answer"), True),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), False),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), False),
        (FileNotFoundError(errno.ENOENT, "no such file"), False),
        (PermissionError(errno.EACCES, "not allowed"), False),
        (OSError("no image"), False),  # as Pillow says it of a broken one
        (DivergedError("the loss is nan"), False),
        (UserError("ppo.batch_size is 7"), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_only_what_may_pass_is_worth_another_start(
    error: Exception, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "PAUSE_S", 0.0)
    assert is_outage(error) == passes
    with pytest.raises(OutageError if passes else type(error)) as raised, convert_outages():
        raise error
    assert str(error) in str(raised.value)
