"""The cluster's scripts and the demo, with programs in the place of others that only note what they are called with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from helpers.cluster import CLUSTER, JOB_READS, ROOT


def test_the_job_says_what_is_missing() -> None:
    bare = {"PATH": os.environ["PATH"]}
    for name in JOB_READS:
        given = {other: "x" for other in JOB_READS if other != name}
        done = subprocess.run(["bash", CLUSTER / "job.sh"], env=bare | given, capture_output=True, text=True)
        assert done.returncode != 0 and name in done.stderr


RECORDER = """#!/usr/bin/env bash
# In the place of a program: notes the verb that it is called with, and ends with the status that is set for it.
for word in "$@"; do
  case $word in preprocess | tune | benchmark | report) verb=$word && break ;; esac
done
echo "$verb" >> "$CALLS"
if [ "$verb" = "${SLEEPS:-}" ]; then
  trap 'echo stopped >> "$CALLS"; exit 143' TERM
  touch "$CALLS.asleep"
  for _ in {1..600}; do sleep 0.1; done
fi
status="STATUS_$verb"
exit "${!status:-0}"
"""


def recorder(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(RECORDER)
    path.chmod(0o755)


@pytest.fixture
def job(tmp_path: Path) -> tuple[list[str], dict[str, str]]:
    """job.sh and its environment, in which `python` only notes what it is called with, in tmp_path / "calls"."""
    recorder(tmp_path / "bin" / "python")
    environment = {name: "x" for name in JOB_READS} | {"CALLS": str(tmp_path / "calls")}
    environment["PATH"] = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    return ["bash", str(CLUSTER / "job.sh")], environment


VERBS = ["preprocess", "tune", "benchmark", "report"]


@pytest.mark.parametrize(
    ("settings", "status", "calls"),
    [
        ({}, 0, VERBS),
        ({"STATUS_tune": "1"}, 1, VERBS),  # trials failed
        ({"STATUS_tune": "1", "TRIALS_FAILED_STATUS": "0"}, 0, VERBS),
        ({"STATUS_tune": "1", "STATUS_benchmark": "2"}, 2, VERBS[:3]),  # all of them
        ({"STATUS_tune": "2"}, 2, VERBS[:2]),
        ({"STATUS_tune": "3", "TRIALS_FAILED_STATUS": "0"}, 3, VERBS[:2]),
        ({"STATUS_preprocess": "1", "TRIALS_FAILED_STATUS": "0"}, 1, VERBS[:1]),  # too many clips failed
    ],
)
def test_failed_trials_do_not_keep_the_job_from_its_report(
    job: tuple[list[str], dict[str, str]], tmp_path: Path, settings: dict[str, str], status: int, calls: list[str]
) -> None:
    argv, environment = job
    assert subprocess.run(argv, env=environment | settings).returncode == status
    assert (tmp_path / "calls").read_text().split() == calls


def test_a_job_that_is_stopped_stops_the_command_that_it_runs(
    job: tuple[list[str], dict[str, str]], tmp_path: Path
) -> None:
    argv, environment = job
    process = subprocess.Popen(argv, env=environment | {"SLEEPS": "tune"})
    deadline = time.monotonic() + 30
    while not (tmp_path / "calls.asleep").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=30) == 143
    assert (tmp_path / "calls").read_text().split() == ["preprocess", "tune", "stopped"]


SLURM = {
    "srun": """#!/usr/bin/env bash
while [[ $1 == -* ]]; do [[ $1 == -w ]] && shift; shift; done
echo "$SRUN_CPUS_PER_TASK $*" >> "$CALLS"
exec "$@"
""",
    "scontrol": "#!/usr/bin/env bash\necho node1\necho node2\n",
    "ray": """#!/usr/bin/env bash
[[ $1 == status ]] && exec test -e "$CALLS.up"
[[ -z ${FAILS:-} ]] || exit 1
touch "$CALLS.up"
exec sleep 60
""",
}
"""In the place of Slurm's and Ray's programs: what runs on a node runs here, and Ray is up or fails."""
STEP = """trap 'echo "stopped ${MLFLOW_AUTH_ADMIN_PASSWORD:-no password}" >> "$CALLS"; exit 143' TERM
touch "$CALLS.asleep"
[[ -z ${SLEEPS:-} ]] || for _ in {1..300}; do sleep 0.1; done
echo "$ADAFOCUS_COMMIT ${MLFLOW_AUTH_ADMIN_PASSWORD:-no password}" >> "$CALLS"
exit 1
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A folder like a checkout whose job only notes how it ended, and the environment of a job on two nodes."""
    for path, text in {
        **{f"bin/{name}": text for name, text in SLURM.items()},
        "pipelines/cluster/job.sh": STEP,
        "pipelines/cluster/mlflow.sh": "exec sleep 60",
        ".venv/bin/activate": "",
        "adafocus.env": "export MLFLOW_TRACKING_USERNAME=me",
        "mlflow.env": "export MLFLOW_AUTH_ADMIN_PASSWORD=secret",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o755)
    job = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]"}
    path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    places = {"PATH": path, "HOME": str(tmp_path), "CALLS": str(tmp_path / "calls"), "ADAFOCUS_COMMIT": "0123abc"}
    yield {**job, **places, "SLURM_CPUS_PER_TASK": "16"}


@contextmanager
def batch(environment: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The Slurm script in a session of its own, of which nothing is left, as Slurm sees to it."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", CLUSTER / "slurm.sh"], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_slurm_job_has_its_processors_and_ends_with_its_jobs_status(slurm: dict[str, str], tmp_path: Path) -> None:
    with batch(slurm, tmp_path) as process:
        assert process.wait(timeout=60) == 1, (tmp_path / "log").read_text()
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls.count("0123abc no password") == 1  # the server's secrets are the server's
    steps = [line for line in calls if "ray start" in line]  # the other node's may come later than the job's end
    assert steps and all(line.startswith("16 ") for line in steps)
    text = (CLUSTER / "slurm.sh").read_text()
    assert "#SBATCH --no-kill\n" in text and "#SBATCH --signal=B:TERM@" in text


def test_a_slurm_job_whose_ray_does_not_start_ends(slurm: dict[str, str], tmp_path: Path) -> None:
    with batch(slurm | {"FAILS": "1"}, tmp_path) as process:
        assert process.wait(timeout=60) == 1
    assert "Ray did not start on node1" in (tmp_path / "log").read_text()


def test_a_slurm_job_at_its_time_limit_lets_the_job_close_its_runs(slurm: dict[str, str], tmp_path: Path) -> None:
    with batch(slurm | {"SLEEPS": "1"}, tmp_path) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "calls.asleep").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.terminate()
        assert process.wait(timeout=60) == 143, (tmp_path / "log").read_text()
    assert (tmp_path / "calls").read_text().splitlines()[-1] == "stopped no password"


@pytest.mark.parametrize(("tune", "status", "calls"), [("0", 0, VERBS), ("1", 2, VERBS), ("3", 2, VERBS[:2])])
def test_failed_trials_do_not_keep_the_demo_from_its_report(
    tmp_path: Path, tune: str, status: int, calls: list[str]
) -> None:
    recorder(tmp_path / "bin" / "adafocus")
    (tmp_path / ".ready").touch()  # the environment is made
    environment = {**os.environ, "CALLS": str(tmp_path / "calls"), "STATUS_tune": tune}
    argv = ["make", "demo", f"VENV={tmp_path}"]
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stderr  # make's own for whatever failed is 2
    assert f"Error {tune}" in done.stderr or tune == "0"
    assert (tmp_path / "calls").read_text().split() == calls
