"""Control groups are read as the kernel writes them, of both versions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from preprocessing.processors import affinity_cores, cpu_quota, usable_cores

COUNT = """
import os
from preprocessing.processors import usable_cores
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(usable_cores())
"""


def test_the_affinity_counts() -> None:
    assert usable_cores() <= affinity_cores() == len(os.sched_getaffinity(0))
    assert subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True).stdout == "1\n"


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),  # of a container that sees itself as the root
        ("0::/", {}, None),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2.0),
        ("0::/a/b", {"a/b/cpu.max": "50000 100000", "a/cpu.max": "200000 100000"}, 0.5),
        ("0::/a", {"a/cpu.max": "nonsense"}, None),
        ("4:cpu,cpuacct:/d\n3:memory:/d", {"cpu,cpuacct/d/cpu.cfs_quota_us": "300000"}, 3.0),
        ("4:cpu,cpuacct:/d", {"cpu/d/cpu.cfs_quota_us": "300000"}, 3.0),
        ("4:cpu:/d", {"cpu/d/cpu.cfs_quota_us": "-1"}, None),
        ("4:cpuset:/d", {"cpuset/d/cpu.cfs_quota_us": "300000"}, None),
    ],
)
def test_the_tightest_limit_around_a_process_counts(
    groups: str, files: dict[str, str], quota: float | None, tmp_path: Path
) -> None:
    (tmp_path / "proc").write_text(groups + "\n")
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        if name.endswith("quota_us"):
            path.with_name("cpu.cfs_period_us").write_text("100000\n")
    assert cpu_quota(tmp_path / "proc", tmp_path / "cgroup") == quota
    assert cpu_quota(tmp_path / "none", tmp_path) is None
