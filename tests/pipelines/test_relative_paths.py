"""A Ray cluster that was started in another folder, and paths that are relative to this one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.sweeping import settings
from helpers.tiny import TINY
from preprocessing.shards.index import read_index
from preprocessing.shards.storage import Store
from preprocessing.shards.verify import Problem, verify

pytestmark = pytest.mark.ray

ENVIRONMENT = {
    **os.environ,
    "RAY_AUTH_MODE": "disabled",
    "PYTHONPATH": str(Path(__file__).parents[2]),
    "MLFLOW_TRACKING_URI": "sqlite:///own.db",
}
STAGES = ("pretrain", "warmup", "ppo", "finetune")


@pytest.fixture
def address(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a cluster that `ray start --head` has started in a folder of its own."""
    folder, port = tmp_path / "elsewhere", 26900 + os.getpid() % 800
    folder.mkdir()
    temp = tmp_path_factory.getbasetemp().parent / f"e{os.getpid()}"  # sockets need short paths
    argv = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    argv += ["--num-cpus=2", "--include-dashboard=false", "--node-ip-address=127.0.0.1"]
    argv += [f"--port={port}", f"--temp-dir={temp}"]
    with (tmp_path / "ray.log").open("w") as log:
        head = subprocess.Popen(argv, cwd=folder, stdout=log, stderr=log, env=ENVIRONMENT)
    deadline = time.monotonic() + 120
    while "runtime started" not in (text := (tmp_path / "ray.log").read_text()):
        assert time.monotonic() < deadline and head.poll() is None, text
        time.sleep(0.1)
    yield f"127.0.0.1:{port}"
    head.send_signal(signal.SIGTERM)
    head.wait(60)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_relative_paths_mean_the_folder_where_the_command_was_given(
    address: str, folder_root: Path, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()

    def adafocus(*arguments: str) -> str:
        argv = [sys.executable, "-m", "pipelines.cli", *arguments, "--runs", "runs", "--ray-address", address]
        done = subprocess.run(argv, cwd=here, env=ENVIRONMENT, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
        return done.stdout

    data = ("--dataset", "folder", "--data-root", os.path.relpath(folder_root, here), "--out", "shards")
    summary = json.loads(adafocus("preprocess", *data, "--height", "40", "--max-failures", "100%", "--json"))
    assert summary["out"] == str(here / "shards") and summary["statuses"]["ok"] == 9
    assert len(read_index(Store(here / "shards")).table) == 12
    assert not [item for item in verify(Store(here / "shards")) if isinstance(item, Problem)]

    once = {f"{stage}.epochs": 1 for stage in STAGES} | {f"{stage}.batch_size": 3 for stage in STAGES}
    tiny = settings({**TINY, **once})
    adafocus("tune", "--recipe", "demo", "--shards", "shards", "--name", "s", "--grid", "ppo.gamma=0.5,0.7", *tiny)
    (row, *_) = json.loads(adafocus("benchmark", "--shards", "shards", "--sweep", "s", "--json"))[0]["rows"]
    assert row["method"] == "policy (AdaFocus)"
    assert {path.name for path in here.iterdir()} == {"shards", "runs", "own.db"}
    assert not list((tmp_path / "elsewhere").iterdir())
