"""Memory that was freed is used again, in a process that has chosen to compute on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from adafocus.devices import pick_device
if {kept}: pick_device("cpu")
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    for _ in range(20): torch.ones(16_000_000)
work()
before = faults()
work()
print(faults() - before)
"""
"""64 MB are 16,000 pages, unless the kernel hands out larger ones. What is kept grows in the first rounds."""


def faults(*, kept: bool, **environment: str) -> int:
    argv = [sys.executable, "-c", FAULTS.format(kept=kept)]
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "THP_"))}
    return int(subprocess.run(argv, env=plain | environment, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
def test_freed_memory_is_kept() -> None:
    assert faults(kept=True) < 1000 < faults(kept=False)


@pytest.mark.slow
def test_the_environment_has_the_last_word() -> None:
    assert faults(kept=True, MALLOC_TRIM_THRESHOLD_="131072") > 1000
