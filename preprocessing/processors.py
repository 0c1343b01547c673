"""The processors that this process may use: fewer than the machine has where a batch system or a container says so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

PROC, CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Number of processors that this process may keep busy, at least 1: by its affinity and its control group."""
    quota = cpu_quota()
    return affinity_cores() if quota is None else max(min(affinity_cores(), int(quota)), 1)


def affinity_cores() -> int:
    """Number of processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota(proc: Path = PROC, root: Path = CGROUPS) -> float | None:
    """How many processors' time the control groups of this process allow, the tightest of them; None for no limit.

    `docker run --cpus 2.5` gives 2.5, and so does a pod's limit in Kubernetes.
    """
    try:
        lines = proc.read_text("utf-8").splitlines()
    except OSError:  # not Linux
        return None
    quotas = [quota for line in lines for folder in _folders(line, root) if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def _folders(line: str, root: Path) -> Iterator[Path]:
    """The folders of a group and of those around it, by a line `number:controllers:path`."""
    _, controllers, path = line.split(":", 2)
    if controllers and "cpu" not in controllers.split(","):
        return
    base = root / controllers if (root / controllers).is_dir() else root / "cpu"
    group = Path(path.lstrip("/"))
    for each in (group, *group.parents):
        yield (base if controllers else root) / each


def _quota(folder: Path) -> float | None:
    """The limit of one group, in processors: of version 2 or 1 of control groups."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text("utf-8").split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text("utf-8").strip() for name in ("quota", "period"))
        return int(quota) / int(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
