"""Passwords in addresses: no command shows or logs one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.sweeping import settings
from pipelines.cli.main import main
from pipelines.paths import Places
from pipelines.tracking import reach
from pipelines.tracking.client import Tracker
from preprocessing.schema import DatasetInfo

SECRET = "S3CRET"
DEAD = f"http://alice:{SECRET}@127.0.0.1:1"
CLOUD = f"cloud://alice:{SECRET}@bucket/shards"

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """command("verb", ...) -> exit status and all that it printed and logged."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["adafocus", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), "".join(capfd.readouterr())

    return run


TRAIN = ("--recipe", "demo", "--shards")


def test_a_store_that_does_not_answer(
    command: Command, synthetic_shards: str, folder_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD)
    monkeypatch.setattr(reach, "WAITS_S", (0.0, 0.0))
    for arguments in (
        ("train", *TRAIN, synthetic_shards),
        ("tune", *TRAIN, synthetic_shards, "--grid", "ppo.gamma=0.5,0.7"),
        ("benchmark", "--shards", synthetic_shards, "--run", "one"),
        ("benchmark", "--shards", synthetic_shards, "--sweep", "one"),
        ("predict", "video.mp4", "--run", "one"),
        ("export", "--out", "out", "--run", "one"),
        ("report",),
        ("dashboard",),
        ("runs", "list"),
        ("runs", "show", "ppo"),
        ("runs", "prune"),
    ):
        status, text = command(*arguments)
        assert SECRET not in text and status == 2, (arguments, text)
        assert "127.0.0.1:1" in text or "video.mp4" in text, (arguments, text)


def test_a_data_set_that_cannot_be_reached(command: Command, folder_root: Path) -> None:
    for arguments in (
        ("preprocess", "--dataset", "folder", "--data-root", folder_root, "--out", CLOUD),
        ("preprocess", "--dataset", "folder", "--data-root", folder_root, "--out", CLOUD, "--dry-run"),
        ("verify", CLOUD),
        ("inspect", CLOUD),
        ("train", *TRAIN, CLOUD),
        ("tune", *TRAIN, CLOUD, "--grid", "ppo.gamma=0.5,0.7"),
        ("import-checkpoint", "none.pth", "--recipe", "demo", "--out", "out", "--shards", CLOUD),
    ):
        _, text = command(*arguments)
        assert SECRET not in text, (arguments, text)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address, with a password, of an MLflow server."""
    folder, port = tmp_path_factory.mktemp("server"), 26100 + os.getpid() % 800
    store = [f"--backend-store-uri=sqlite:///{folder}/mlflow.db", f"--artifacts-destination={folder}/artifacts"]
    argv = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1", *store]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, env=environment)
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            break
        except OSError:
            assert time.monotonic() < deadline and process.poll() is None, (folder / "log").read_text()
            time.sleep(0.2)
    yield f"http://alice:{SECRET}@127.0.0.1:{port}"
    process.terminate()
    process.wait(60)


def test_a_store_that_answers(
    server: str,
    command: Command,
    synthetic_shards: str,
    tiny_changes: dict[str, object],
    info: DatasetInfo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    for arguments, status, message in (
        (("report", "--runs", "runs"), 2, "holds no trial yet"),
        (("benchmark", "--shards", synthetic_shards, "--run", "nobody", "--runs", "runs"), 2, "there is no run"),
        (("benchmark", "--shards", synthetic_shards, "--sweep", "none", "--runs", "runs"), 2, "there is no trial"),
        (("dashboard", "--runs", "runs"), 2, "that server has the dashboard already"),
        (("train", *TRAIN, synthetic_shards, "--runs", "runs", *settings({**tiny_changes, "ppo.lr": 1e30})), 1, ""),
        (("report", "--runs", "runs"), 0, "written"),
    ):
        code, text = command(*arguments)
        assert code == status and message in text and SECRET not in text, (arguments, text)
    assert SECRET not in (tmp_path / "results" / "RESULTS.md").read_text()

    tracker = Tracker.at(Places.of("", tmp_path / "runs"))
    run = tracker.run("folder", "trial", "one", trial="one")
    run.log_dataset(info.name, "d", f"s3://alice:{SECRET}@bucket/shards?region=x")
    run.finish("FAILED", f"no answer of {server}/api")
    assert tracker.shards_of(run.run_id) == "s3://bucket/shards?region=x"
    assert SECRET not in str(tracker.client.get_run(run.run_id).to_dictionary())
