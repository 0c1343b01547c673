"""Threads that wait sleep, in every process that loads torch through us, unless the user wants otherwise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from helpers.threads import SLEEP, bare_environment, spin_counts


def counts_of(*arguments: str | Path, **environment: str) -> list[int]:
    argv = [sys.executable, *map(str, arguments)]
    found = subprocess.run(argv, env=bare_environment(**environment), check=True, capture_output=True, text=True)
    return spin_counts(found.stderr)


@pytest.fixture(scope="module", autouse=True)
def gnu_openmp() -> None:
    """Only this OpenMP counts how often a thread that waits looks for work."""
    if not counts_of("-c", "import torch"):
        pytest.skip("torch comes without GNU's OpenMP here")


@pytest.mark.parametrize("module", ["adafocus.devices", "pipelines.training.train"])
def test_threads_sleep_while_they_wait(module: str) -> None:
    assert set(counts_of("-c", f"import {module}, torch")) == {SLEEP}


def test_the_user_has_the_last_word() -> None:
    assert min(counts_of("-c", "import adafocus, torch", OMP_WAIT_POLICY="ACTIVE")) > SLEEP


LOAD = """
import multiprocessing
from adafocus.config.schema import DataConfig
from adafocus.data.loader import ClipLoader
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    data = DataConfig(num_frames=2, num_focus_frames=2, resize=40, crop=40)
    for batch in ClipLoader({shards!r}, "val", data, batch_size=5, train=False, num_workers=2):
        pass
"""


@pytest.mark.slow
def test_processes_that_load_data_do_as_the_one_that_starts_them(synthetic_shards: str, tmp_path: Path) -> None:
    """Spawned ones load torch anew; forked ones go on with what their parent has loaded."""
    script = tmp_path / "load.py"
    script.write_text(LOAD.format(shards=synthetic_shards))
    counts = counts_of(script)
    assert len(counts) >= 3 and set(counts) == {SLEEP}
