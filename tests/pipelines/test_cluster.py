"""The cluster files: what can be checked without a cloud; and their job on a real cluster of two nodes."""

from __future__ import annotations

import json
import os
import re
import shutil
import site
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
import ray
import yaml
from conftest import TINY
from test_readme import options_of

from adafocus.config import STAGES
from pipelines.tracking import Tracker

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "pipelines" / "cluster"
JOB_READS = ("DATASET", "DATA_ROOT", "SHARDS", "RUNS", "RECIPE", "NAME", "MLFLOW_TRACKING_URI", "ADAFOCUS_COMMIT")


@pytest.mark.parametrize("script", sorted(CLUSTER.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", script], check=True)


def test_the_cloud_file_fits_rays_schema() -> None:
    document = yaml.safe_load((CLUSTER / "aws.yaml").read_text())
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(document, schema)
    assert document["head_node_type"] in document["available_node_types"]
    assert any(
        node.get("max_workers", 0) > node.get("min_workers", 0) for node in document["available_node_types"].values()
    )
    for mount in document["file_mounts"].values():
        assert mount.startswith("~") or (ROOT / mount).exists(), mount
    started = " ".join(document["head_start_ray_commands"] + document["worker_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in started and "0.0.0.0" not in started
    assert started.count("RAY_AUTH_MODE=token") == 2 and "mlflow.sh" in started


RAYJOB = {
    "entrypoint": str,
    "runtimeEnvYAML": str,
    "submissionMode": str,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "backoffLimit": int,
    "submitterPodTemplate": dict,
    "rayClusterSpec": dict,
}
RAYCLUSTER = {
    "rayVersion": str,
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": dict,
    "headGroupSpec": dict,
    "workerGroupSpecs": list,
}
WORKERS = {
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "rayStartParams": dict,
    "template": dict,
}
"""Fields of the operator's API ray.io/v1 that the manifest uses, with their types."""


def of_fields(value: dict[str, Any], fields: dict[str, type]) -> None:
    assert value.keys() <= fields.keys(), f"unknown to the operator: {value.keys() - fields.keys()}"
    for key, each in value.items():
        assert type(each) is fields[key], f"{key} is {each!r}"


def test_the_kubernetes_manifest_has_the_operators_fields() -> None:
    deployment, service, job = yaml.safe_load_all((CLUSTER / "kuberay.yaml").read_text())
    assert (deployment["kind"], service["kind"], service["spec"]["type"]) == ("Deployment", "Service", "ClusterIP")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    of_fields(job["spec"], RAYJOB)
    cluster = job["spec"]["rayClusterSpec"]
    of_fields(cluster, RAYCLUSTER)
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    of_fields(head, {"serviceType": str, "rayStartParams": dict, "template": dict})
    for group in workers:
        of_fields(group, WORKERS)
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in (head, *workers):
        assert all(type(value) is str for value in group["rayStartParams"].values())
    submitter = job["spec"]["submitterPodTemplate"]
    for template in (submitter, *(group["template"] for group in (head, *workers))):
        (container,) = template["spec"]["containers"]
        assert {"name": "RAY_AUTH_MODE", "value": "token"} in container["env"]
        assert container["envFrom"] == [{"secretRef": {"name": "adafocus"}}]
        for mount in container.get("volumeMounts", []):
            assert mount["name"] in {volume["name"] for volume in template["spec"]["volumes"]}
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert cluster["rayVersion"] == pinned["ray"]
    environment = yaml.safe_load(job["spec"]["runtimeEnvYAML"])
    assert set(JOB_READS) <= set(environment["env_vars"])
    assert not any(word in name for name in environment["env_vars"] for word in ("PASSWORD", "TOKEN", "SECRET"))


def test_the_commands_options_exist() -> None:
    texts = {path.name: path.read_text() for path in CLUSTER.iterdir()}
    for verb in ("tune", "benchmark"):
        given = re.findall(rf"{verb.upper()}_ARGS(?:: |=\"|:-)(--[^\"}}\n]+)", "\n".join(texts.values()))
        assert len(given) == 3
        for words in given:
            assert {word for word in words.split() if word.startswith("--")} <= options_of(verb), words
    verbs = re.findall(r"^adafocus (\w+) (.*)$", texts["job.sh"], re.MULTILINE)
    assert [verb for verb, _ in verbs] == ["preprocess", "tune", "benchmark", "report"]
    for verb, words in verbs:
        assert {word for word in words.split() if word.startswith("--")} <= options_of(verb), words


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


@contextmanager
def running(argv: list[str], log: Path, environment: dict[str, str], cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server with all that it starts, killed at the end."""
    with log.open("wb") as out:
        process = subprocess.Popen(argv, env=environment, cwd=cwd, stdout=out, stderr=out, start_new_session=True)
    try:
        yield process
    finally:
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()


def answers(url: str, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return  # it answers: it wants a token
        except OSError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_job_runs_on_two_nodes_that_have_only_the_packages(
    folder_root: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """`ray start --head`, `ray start --address`, `ray job submit`, as in README: with a token, MLflow by HTTP."""
    venv.create(tmp_path / "env", symlinks=True)
    (place,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    packages = [path for path in sys.path if path.endswith("site-packages")] or site.getsitepackages()
    (place / "packages.pth").write_text("\n".join(packages))  # a path in a .pth is not searched for further .pth files
    python, away = str(tmp_path / "env" / "bin" / "python"), tmp_path / "away"
    away.mkdir()
    found = subprocess.run([python, "-c", "import ray, torch, mlflow; import pipelines"], cwd=away, capture_output=True)
    assert b"No module named 'pipelines'" in found.stderr, found.stderr

    gcs, dashboard, mlflow = (25300 + os.getpid() % 200 + offset for offset in (0, 200, 400))
    temp = tmp_path_factory.getbasetemp().parent / f"r{os.getpid()}"  # sockets need short paths
    uri = f"http://127.0.0.1:{mlflow}"
    token = tmp_path / "token"
    token.write_text("t" * 32)
    token.chmod(0o600)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "MLFLOW_", "PYTHON"))},
        "PATH": f"{Path(python).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "OMP_NUM_THREADS": "1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    start = [python, "-m", "ray.scripts.scripts", "start", "--num-cpus=1", "--block", "--disable-usage-stats"]
    head = [*start, "--head", "--node-ip-address=127.0.0.1", f"--port={gcs}", f"--temp-dir={temp}"]
    head += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    # Of its own, as on another machine: a node deletes a job's files when none of its workers needs them any more.
    node = [*start, f"--address=127.0.0.1:{gcs}", f"--temp-dir={temp}b"]
    store = [f"--backend-store-uri=sqlite:///{tmp_path}/mlflow.db", f"--artifacts-destination={tmp_path}/artifacts"]
    server = [python, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={mlflow}", "--workers=1", *store]
    runs = tmp_path / "runs"
    sizes = {f"{stage}.batch_size": 3 for stage in STAGES}  # six clips to learn from
    changes = {**TINY, **sizes, "data.crop_scales": "1,0.875"}
    settings = " ".join(f"--set {key}={value}" for key, value in changes.items())
    job = {
        "DATASET": "folder",
        "DATA_ROOT": str(folder_root),
        "SHARDS": str(tmp_path / "shards"),
        "RUNS": str(runs),
        "RECIPE": "demo",
        "NAME": "cluster",
        "MLFLOW_TRACKING_URI": uri,
        "PREPROCESS_ARGS": "--height 40 --clips-per-shard 3 --max-failures 100%",
        "TUNE_ARGS": f"--grid ppo.gamma=0.5,0.7 --device cpu {settings}",
        "ADAFOCUS_COMMIT": "0123abc",
    }
    submit = [python, "-m", "ray.scripts.scripts", "job", "submit", "--working-dir", str(ROOT)]
    submit += ["--runtime-env-json", json.dumps({"env_vars": job})]
    submit += ["--", "bash", "pipelines/cluster/job.sh"]
    with (
        running(server, tmp_path / "mlflow.log", environment, away),
        running(head, tmp_path / "head.log", environment, away),
    ):
        answers(f"http://127.0.0.1:{dashboard}")
        answers(f"{uri}/health")
        with running(node, tmp_path / "node.log", environment, away):
            address = {"RAY_ADDRESS": f"http://127.0.0.1:{dashboard}"}
            stranger = {**environment, **address, "RAY_AUTH_MODE": "disabled"}
            refused = subprocess.run(submit, env=stranger, cwd=away, capture_output=True, text=True, timeout=120)
            assert refused.returncode != 0 and "oken" in refused.stdout + refused.stderr
            done = subprocess.run(
                submit, env=environment | address, cwd=away, capture_output=True, text=True, timeout=700
            )
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
            tracker = Tracker(tmp_path / "reader", uri)
            (parent,), trials = tracker.find("sweep", sweep="cluster"), tracker.find("trial", sweep="cluster")
            assert [run.info.status for run in (parent, *trials)] == ["FINISHED"] * 3
            assert {run.data.params["git_commit"] for run in trials} == {"0123abc"}
            assert len(tracker.find("benchmark")) == 1 and len(tracker.find("preprocess")) == 1
            picture = tracker.client.download_artifacts(tracker.find("benchmark")[0].info.run_id, "compute.png")
            assert Path(picture).stat().st_size > 1000
    assert "policy (AdaFocus)" in (runs / "results" / "RESULTS.md").read_text()
    assert list(tmp_path.joinpath("artifacts").rglob("weights-*.safetensors"))
