"""What of this machine gets into the way of long work: each check looks at one thing, says what it is, and what is
wrong with it."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adafocus.data import socket_folder
from pipelines.ray_runtime import session
from preprocessing.processors import affinity_cores, cpu_quota, usable_cores

log = logging.getLogger(__name__)

SHM = Path("/dev/shm")
LEAST_SHM, LEAST_FILES, LEAST_DISK, LEAST_TEMPORARY = 1 << 30, 1024, 10 << 30, 1 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about one thing."""

    subject: str
    value: str
    trouble: str = ""
    """What is wrong with it and what helps; empty if nothing is."""


def check_processors() -> Finding:
    """How many processors there are, and how many this process may use."""
    there, quota = os.cpu_count() or 1, cpu_quota()
    limits = [f"affinity {affinity_cores()}"] if affinity_cores() < there else []
    limits += [] if quota is None else [f"control group {quota:g}"]
    return Finding("processors", f"{usable_cores()} of {there}" + (f" ({', '.join(limits)})" if limits else ""))


def check_shared_memory(folder: Path = SHM, least: int = LEAST_SHM) -> Finding:
    """Is there room for what processes hand over in shared memory?"""
    if not folder.is_dir():
        needed = "loader processes hand over their batches there: --num-workers 0 does without"
        return Finding("shared memory", f"there is no {folder}", needed if sys.platform == "linux" else "")
    usage = shutil.disk_usage(folder)
    trouble = ""
    if usage.free < least:
        trouble = (
            "loader processes hand over their batches there: --num-workers 0 does without, `docker run --shm-size=8g` "
            "makes it larger"
        )
    return Finding("shared memory", f"{_gigabytes(usage.free)} of {_gigabytes(usage.total)} GB free", trouble)


def check_temporary_folder(folder: Path | None = None) -> Finding:
    """Is the folder for temporary files there, with room, and with a name that leaves room for sockets?"""
    named, folder = os.environ.get("TMPDIR") if folder is None else None, folder or Path(tempfile.gettempdir())
    length, longest = len(os.fsencode(folder)), min(socket_folder.LONGEST, session.LONGEST - len("/ray"))
    free = shutil.disk_usage(folder).free
    value = f"{folder}, {_gigabytes(free)} GB free"
    if named and Path(named).absolute() != folder:
        return Finding("temporary files", value, f"TMPDIR is {named}, which is no folder that can be written")
    if length > longest:
        return Finding(
            "temporary files",
            value,
            f"its name has {length} bytes, and sockets below it leave {longest}: theirs go to {session.SHORT}; a "
            "shorter TMPDIR avoids that",
        )
    return Finding("temporary files", value, "" if free >= LEAST_TEMPORARY else "there is hardly any room: set TMPDIR")


def check_open_files(least: int = LEAST_FILES) -> Finding:
    """May this process open as many files as loaders and Ray need?"""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    words = ["no limit" if limit == resource.RLIM_INFINITY else str(limit) for limit in (soft, hard)]
    few = soft != resource.RLIM_INFINITY and soft < least
    trouble = f"loaders and Ray open more than that: `ulimit -n {least}`" if few else ""
    return Finding("open files", f"{words[0]} (at most {words[1]})", trouble)


def check_disk(folder: Path, subject: str = "disk", least: int = LEAST_DISK) -> Finding:
    """Is there room where results are written?"""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    trouble = "" if free >= least else f"less than {_gigabytes(least)} GB are left"
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        trouble = f"{existing} is {'a folder that cannot be written' if existing.is_dir() else 'a file'}"
    return Finding(subject, f"{folder}: {_gigabytes(free)} GB free", trouble)


def say_troubles(num_workers: int = 0) -> None:
    """Log what of this machine gets into the way of work that is about to start, with so many processes that load."""
    checks: list[Callable[[], Finding]] = [check_temporary_folder, check_open_files]
    checks += [check_shared_memory] * bool(num_workers)
    for found in (check() for check in checks):
        if found.trouble:
            log.warning("%s: %s: %s (`adafocus doctor` says more)", found.subject, found.value, found.trouble)


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f}"
