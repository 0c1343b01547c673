"""Whether an MLflow store can be reached: asked in seconds, before MLflow itself tries again and again for minutes."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import requests

from pipelines.paths import SQLITE
from preprocessing.addresses import without_secrets
from preprocessing.schema import UserError

WAITS_S = (1.0, 3.0)
"""Pauses before a server is asked again."""
ANSWER_S = 10.0


def is_server(uri: str) -> bool:
    """Is the store a server, and not a database?"""
    return uri.startswith(("http://", "https://"))


@functools.cache
def check_reach(uri: str) -> None:
    """Raise UserError unless a store is there: something that answers HTTP, whatever it says, or a file of SQLite that
    can be opened, which is made if need be. A process asks until it could be reached once."""
    if is_server(uri):
        _check_server(uri)
    elif uri.startswith(SQLITE):
        with _opened(uri) as database:
            database.execute("PRAGMA schema_version")


def check_writable(uri: str) -> None:
    """Raise UserError for a file of SQLite that can be read and not written: before the work whose results go there."""
    if uri.startswith(SQLITE):
        with _opened(uri) as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("CREATE TABLE tried_to_write (x)")  # which is taken back
            database.execute("ROLLBACK")


def _check_server(uri: str) -> None:
    """No password is sent, and no certificate is checked: that is left to MLflow's own requests."""
    for wait_s in (*WAITS_S, None):
        try:
            parts = urlsplit(uri)
            with warnings.catch_warnings(action="ignore"):  # that no certificate is checked
                address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/health"
                requests.head(address, timeout=ANSWER_S, verify=False)
            return
        except requests.exceptions.SSLError:  # something is there, which may want a certificate that MLflow has
            return
        except (requests.RequestException, ValueError) as error:
            if wait_s is None or not isinstance(error, requests.ConnectionError | requests.Timeout):
                raise UserError(
                    f"the MLflow server {without_secrets(uri)} does not answer: {_reason(error)}"
                ) from error
            time.sleep(wait_s)


def _reason(error: Exception) -> str:
    """Why, in a few words: the innermost cause, without the objects' addresses that libraries put around it."""
    if isinstance(error, requests.Timeout):
        return f"nothing came within {ANSWER_S:g} s"
    while (inner := error.__cause__ or error.__context__) is not None and isinstance(inner, Exception):
        error = inner
    return without_secrets(str(error))


@contextlib.contextmanager
def _opened(uri: str) -> Iterator[sqlite3.Connection]:
    """The database. Raises UserError where SQLite refuses it, but for one that is locked, which passes."""
    name = uri.removeprefix(SQLITE)
    is_uri = name.startswith("file:")
    path = name if is_uri else name.partition("?")[0]
    try:
        if not is_uri:
            Path(path).parent.mkdir(parents=True, exist_ok=True)  # as MLflow does
        with contextlib.closing(sqlite3.connect(path, uri=is_uri, isolation_level=None)) as database:
            yield database
    except (sqlite3.Error, OSError) as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise UserError(f"the MLflow store {without_secrets(uri)} cannot be used: {error}") from error
