"""Sweeps as processes, for tests that kill them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Run as MlflowRun

from pipelines.tracking.client import Tracker


@dataclass
class Sweeping:
    """One `adafocus tune` in a process of its own."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait(self, timeout_s: float = 240) -> int:
        """Its exit status."""
        return self.process.wait(timeout_s)

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.log.read_text()

    def kill(self) -> None:
        """kill -9, of the driver alone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def settings(changes: dict[str, object]) -> list[str]:
    """Changes of a recipe as options of the command line."""
    texts = {key: ",".join(map(str, value)) if isinstance(value, tuple) else value for key, value in changes.items()}
    return [word for key, value in texts.items() for word in ("--set", f"{key}={value}")]


def start(runs: Path, *options: object, log: str = "log", verb: str = "tune", folder: Path | None = None) -> Sweeping:
    """`adafocus tune --runs RUNS ...`, printing into a file in `folder`, else beside the results."""
    runs.mkdir(parents=True, exist_ok=True)
    path = (folder or runs.parent) / f"{runs.name}.{log}"
    argv = [sys.executable, "-m", "pipelines.cli", verb, "--runs", str(runs), *map(str, options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with path.open("w") as file:
        return Sweeping(subprocess.Popen(argv, stdout=file, stderr=file, env=environment), path)


def wait_for(condition: Callable[[], object], sweeping: Sweeping | None = None, timeout_s: float = 180) -> None:
    """Wait until something is the case, while the sweep runs."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, sweeping.text if sweeping else "time is over"
        assert sweeping is None or sweeping.process.poll() is None, sweeping.text
        time.sleep(0.02)


def holder(runs: Path, stage: str) -> int | None:
    """The process that trains a stage of this kind now and has saved a state."""
    for marker in (runs / ".locks").glob(f"{stage}-*.lock"):
        if (runs / f"{marker.stem}.partial" / "state.pt").exists():
            found = re.search(r"^pid=(\d+)$", marker.read_text(), re.MULTILINE)
            if found:
                return int(found[1])
    return None


def weights(runs: Path) -> dict[str, int]:
    """Weights of all finished stages, and when they were written."""
    finished = [meta.parent for meta in runs.glob("*-*/meta.json")]
    return {str(file.relative_to(runs)): file.stat().st_mtime_ns for f in finished for file in f.glob("*.safetensors")}


def trials(runs: Path, sweep: str) -> list[MlflowRun]:
    """A sweep's trials in MLflow."""
    return Tracker(runs).find("trial", sweep=sweep)


def assert_each_epoch_once(runs: Path, found: Iterable[MlflowRun], metric: str, steps: list[int]) -> None:
    """A metric's steps in every trial's run."""
    client = Tracker(runs).client
    for run in found:
        assert [entry.step for entry in client.get_metric_history(run.info.run_id, metric)] == steps
