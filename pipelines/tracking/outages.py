"""Outages: errors that may be gone a minute later."""

from __future__ import annotations

import errno
import sqlite3

import requests
from mlflow.exceptions import MlflowException

LASTING = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EEXIST),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ENOMEM),
}
"""Errors of files that do not pass by themselves."""


def is_outage(error: BaseException) -> bool:
    """Did something fail, as the cause of others perhaps, that may well work a minute later: a server that does not
    answer, a locked database, a storage that is gone? A full disk or a missing file is as it is."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return not any(map(_lasts, chain)) and any(map(_passes, chain))


def _lasts(error: BaseException) -> bool:
    of_disk = isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorname", "") in (
        "SQLITE_FULL",
        "SQLITE_READONLY",
    )
    return of_disk or (isinstance(error, OSError) and error.errno in LASTING)


def _passes(error: BaseException) -> bool:
    if isinstance(error, requests.RequestException):
        return isinstance(error, requests.ConnectionError | requests.Timeout | requests.exceptions.RetryError)
    if isinstance(error, MlflowException):
        return error.error_code == "TEMPORARILY_UNAVAILABLE"
    return isinstance(error, ConnectionError | TimeoutError) or (isinstance(error, OSError) and error.errno is not None)
