"""In Ray's workers, too, threads that wait sleep, whoever started the cluster."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from helpers.threads import SLEEP, bare_environment, spin_counts
from pipelines.ray_runtime import session
from pipelines.ray_runtime.session import _wait_policy, check_address, ray_session, short_folder
from preprocessing.schema import UserError

pytestmark = pytest.mark.ray

RUN = """
import sys
import ray
from pipelines.ray_runtime.session import ray_session
import torch
with ray_session(sys.argv[1], worker_logs=True):
    ray.get(ray.remote(torch.is_tensor).remote(1))
"""
"""A task that loads torch in a worker before anything of ours, as Ray Train does."""


GIVEN_VARIABLES = """
import os
import sys
import ray
from ray.cluster_utils import Cluster
from pipelines.ray_runtime.session import ray_session
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1}) if sys.argv[1] == "joined" else None
with ray_session(cluster.address if cluster else "local"):
    ask = ray.remote(os.getenv).options(runtime_env={"env_vars": {"GIVEN": "yes"}})
    print("given:", ray.get(ask.remote("GIVEN"), timeout=150))
"""


def counts_of_workers(address: str, **environment: str) -> list[int]:
    """Spin counts of the worker that a driver's task ran in, as Ray passes its output on."""
    argv = [sys.executable, "-c", RUN, address]
    ran = subprocess.run(argv, env={**bare_environment(), **environment}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    lines = (ran.stdout + ran.stderr).splitlines()
    return spin_counts("\n".join(line for line in lines if "pid=" in line))


@pytest.fixture
def foreign_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a cluster whose processes know nothing of our policy."""
    for name in ("OMP_WAIT_POLICY", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_DISPLAY_ENV", "VERBOSE")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield cluster.address
    cluster.shutdown()


@pytest.mark.slow
def test_workers_of_another_cluster_sleep(foreign_cluster: str) -> None:
    counts = counts_of_workers(foreign_cluster)
    assert counts and set(counts) == {SLEEP}


@pytest.mark.slow
@pytest.mark.parametrize("address", ["local", "joined"])
def test_workers_start_where_python_lies_below_a_folder_with_a_space(address: str, tmp_path: Path) -> None:
    """Those too that are given variables, as all of Tune's are. They never started."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "my work"], check=True)
    python = tmp_path / "my work" / "bin" / "python"
    (own,) = (tmp_path / "my work").glob("lib/python*/site-packages")
    (own / "all.pth").write_text("\n".join(path for path in sys.path if path))
    argv = [python, "-c", GIVEN_VARIABLES, address]
    ran = subprocess.run(argv, env=bare_environment(), capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0 and "given: yes" in ran.stdout, ran.stderr


@pytest.fixture
def long_folder(tmp_path: Path) -> Path:
    """A folder with too long a name for sockets below it, as batch systems make one for each job."""
    folder = tmp_path / ("slurm_jobdir_" * 9)
    folder.mkdir(parents=True)
    return folder


def test_an_own_cluster_starts_where_the_temporary_folder_has_a_long_name_and_its_workers_sleep(
    long_folder: Path,
) -> None:
    counts = counts_of_workers("local", TMPDIR=str(long_folder))
    assert counts and set(counts) == {SLEEP}


COUNT = """
import os
import ray
from pipelines.ray_runtime.session import ray_session
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
with ray_session("local"):
    print(ray.cluster_resources()["CPU"])
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is only one processor")
def test_ray_counts_the_processors_that_the_process_may_use() -> None:
    ran = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True)
    assert ran.stdout == "1.0\n", ran.stderr


def test_only_a_long_name_moves_the_files_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        for letters, moved in ((31, None), (41, "/tmp/ray")):
            folder = Path(short, "x" * (letters - len(short) - 1))
            folder.mkdir()
            monkeypatch.setenv("TMPDIR", str(folder))
            assert short_folder() == moved
        monkeypatch.setenv("RAY_TMPDIR", f"{short}/new")
        assert short_folder() is None


@pytest.mark.parametrize("folder", ["/no/such/folder", "/etc/passwd", "/proc/x"])
def test_a_temporary_folder_that_cannot_be_used_is_said(
    folder: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", folder)
    assert short_folder() == "/tmp/ray" and f"TMPDIR is {folder}, which is no folder" in caplog.text
    if folder != "/no/such/folder":
        monkeypatch.setenv("RAY_TMPDIR", folder)
        with pytest.raises(UserError, match=f"RAY_TMPDIR is {folder}, where Ray can keep no files"):
            short_folder()


@pytest.mark.parametrize("address", ["127.0.0.1", "LOCAL", "anyscale://x", "host:port", ":6379", "a/b:1"])
def test_an_address_that_is_none_is_said(address: str) -> None:
    with pytest.raises(UserError, match="is no address of a Ray cluster: give auto, HOST:PORT"):
        check_address(address)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["silent", "dashboard"])
@pytest.mark.parametrize("form", ["{}:{}", "ray://{}:{}"])
def test_what_listens_and_is_no_cluster_is_said(answer: bytes, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself waits for minutes."""
    monkeypatch.setattr(session, "ANSWER_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: server.accept()[0].sendall(answer) if answer else None)
        thread.start()
        with pytest.raises(UserError, match="is no Ray cluster: give the port"):
            check_address(form.format(*server.getsockname()))
        thread.join()


def test_a_ray_that_does_not_start_in_time_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that is very busy."""

    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.\nThis could happen")

    monkeypatch.setattr(session.ray, "init", init)
    with (
        pytest.raises(UserError, match=r"Ray did not start: .*timed out during startup\. This could"),
        ray_session(None),
    ):
        pass


def test_addresses_of_version_6_and_blanks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", " ")
    assert check_address(None) == "local" and check_address(" auto ") == "auto"
    with pytest.raises(UserError, match=r"no Ray cluster at '\[::1\]:9': \[Errno"):
        check_address("[::1]:9")


def test_the_address_of_a_dashboard_is_no_cluster_to_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(UserError, match=r"takes jobs .* unset RAY_ADDRESS"), ray_session(None):
        pass


def test_a_job_that_names_a_policy_is_not_contradicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray refuses a variable that both the job and its process name."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert _wait_policy() == {"OMP_WAIT_POLICY": "ACTIVE"}
    for environment in ({}, {"env_vars": {"RECIPE": "demo"}}):
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": environment}))
        assert _wait_policy() == {"OMP_WAIT_POLICY": "ACTIVE"}
    job = {"runtime_env": {"env_vars": {"OMP_WAIT_POLICY": "ACTIVE"}}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    assert _wait_policy() == {}
