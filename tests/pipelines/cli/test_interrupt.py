"""Ctrl-C or SIGTERM on a sweep: it ends within seconds, says how to go on, and leaves no run open."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.tracking.client import Tracker

pytestmark = pytest.mark.ray


@pytest.mark.parametrize(
    ("sent", "expected", "word"),
    [
        (signal.SIGINT, 130, "interrupted"),
        pytest.param(signal.SIGTERM, 143, "terminated", marks=pytest.mark.slow),
    ],
)
def test_a_sweep_ends_and_says_how_to_go_on(
    sent: signal.Signals,
    expected: int,
    word: str,
    synthetic_shards: str,
    tmp_path: Path,
    tiny_changes: dict[str, object],
) -> None:
    changes = {**tiny_changes, "data.crop_scales": "1,0.875", "ppo.epochs": 500}
    settings = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    argv = [sys.executable, "-m", "pipelines.cli", "tune", "--recipe", "demo", "--shards", synthetic_shards]
    argv += ["--runs", str(tmp_path), "--name", "c", "--grid", "ppo.gamma=0.5,0.7", *settings]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            argv,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
        )
        deadline = time.monotonic() + 240  # on a busy machine
        while len(list(tmp_path.glob("ppo-*.partial/state.pt"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(sent)
        status = process.wait(timeout=30)
    assert status == expected
    assert (tmp_path / "log").read_text().strip().splitlines()[-1] == (
        f"adafocus: {word}; start the same command again to go on"
    )
    tracker = Tracker(tmp_path)
    assert [run.info.status for run in tracker.find("sweep")] == ["KILLED"]
    assert [run.info.status for run in tracker.find("trial")] == ["KILLED", "KILLED"]
