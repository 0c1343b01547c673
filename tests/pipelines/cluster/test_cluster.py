"""The cluster files: what can be checked without a cloud; their servers; their job on a real cluster of two nodes."""

from __future__ import annotations

import base64
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
import kubernetes.client.models
import psutil
import pytest
import ray
import yaml

from helpers.cluster import CLUSTER, JOB_READS, ROOT
from helpers.commands import options_of
from helpers.tiny import STAGES, TINY
from pipelines.tracking.client import Tracker


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
    head, worker = (document[f"{kind}_start_ray_commands"][-1] for kind in ("head", "worker"))
    assert "--dashboard-host=127.0.0.1" in head and "0.0.0.0" not in head + worker
    assert "MLFLOW_TRACKING_URI=http://$(hostname -I" in head and "MLFLOW_TRACKING_URI=http://$RAY_HEAD_IP:" in worker
    for command in (head, worker):
        assert ". ~/adafocus.env; export RAY_AUTH_MODE=token " in command
        subprocess.run(["bash", "-n", "-c", command], check=True)
    for name, node in document["available_node_types"].items():
        profile = node["node_config"]["IamInstanceProfile"]["Arn"]  # Ray gives one of its own to heads alone
        assert profile.endswith("ray-head-v1" if name == "head" else "ray-worker-v1")
        assert node["node_config"]["ImageId"] == "AMI"  # which no region has: Ray's default is too old for these GPUs
    assert not any("mlflow.env" in place for place in document["file_mounts"])  # those go to every node


@pytest.mark.parametrize("name", ["aws.yaml", "kuberay.yaml"])
def test_words_in_capitals_are_explained(name: str) -> None:
    text = (CLUSTER / name).read_text()
    head = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    commands, about = head.split("# Words in capitals")
    used = commands + "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    words = ("ACCOUNT", "AMI", "BUCKET", "COMMIT", "EFS", "REGISTRY")
    found = [[word for word in words if re.search(rf"\b{word}\b", part)] for part in (used, about)]
    assert found[0] == found[1] and len(found[0]) >= 3


RAYJOB = {
    "entrypoint": str,
    "runtimeEnvYAML": str,
    "submissionMode": str,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "backoffLimit": int,
    "submitterPodTemplate": "V1PodTemplateSpec",
    "rayClusterSpec": {
        "rayVersion": str,
        "authOptions": {"mode": str, "secretName": str},
        "enableInTreeAutoscaling": bool,
        "autoscalerOptions": {"idleTimeoutSeconds": int, "upscalingMode": str},
        "headGroupSpec": {"serviceType": str, "rayStartParams": "Dict[str, str]", "template": "V1PodTemplateSpec"},
        "workerGroupSpecs": [
            {
                "groupName": str,
                "replicas": int,
                "minReplicas": int,
                "maxReplicas": int,
                "rayStartParams": "Dict[str, str]",
                "template": "V1PodTemplateSpec",
            }
        ],
    },
}
"""Fields of the operator's API ray.io/v1 (KubeRay 1.6) that the manifest uses, with their types; those of Kubernetes
itself by the names that its own client has for them."""


def of_fields(value: Any, kind: Any, place: str) -> None:
    """Assert that a value has no field that its kind does not have, and that all of them have its types."""
    if isinstance(kind, dict):
        assert type(value) is dict and value.keys() <= kind.keys(), f"{place}: {value}"
        for key, each in value.items():
            of_fields(each, kind[key], f"{place}.{key}")
    elif isinstance(kind, list):
        assert type(value) is list, place
        for number, each in enumerate(value):
            of_fields(each, kind[0], f"{place}[{number}]")
    elif isinstance(kind, type):
        assert type(value) is kind, f"{place} is {value!r}"
    elif found := re.fullmatch(r"List\[(.*)\]", kind):
        of_fields(value, [found[1]], place)
    elif found := re.fullmatch(r"Dict\[str, (.*)\]", kind):
        of_fields(value, dict.fromkeys(value, found[1]), place)
    elif kind in ("str", "int", "bool"):
        of_fields(value, {"str": str, "int": int, "bool": bool}[kind], place)
    elif kind != "object":  # which is text or number
        model = getattr(kubernetes.client.models, kind)
        of_fields(value, {model.attribute_map[key]: each for key, each in model.openapi_types.items()}, place)
        made = {name: value[key] for name, key in model.attribute_map.items() if key in value}
        model(**made)  # raises ValueError for a required field that is missing


def secrets_of(pod: dict[str, Any]) -> list[str]:
    (container,) = pod["spec"]["containers"]
    return [each["secretRef"]["name"] for each in container.get("envFrom", [])]


def test_the_kubernetes_manifest_has_the_fields_of_kubernetes_and_of_the_operator() -> None:
    deployment, service, job = yaml.safe_load_all((CLUSTER / "kuberay.yaml").read_text())
    assert (deployment["kind"], service["kind"], service["spec"]["type"]) == ("Deployment", "Service", "ClusterIP")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    of_fields(deployment, "V1Deployment", "Deployment")
    of_fields(service, "V1Service", "Service")
    of_fields(job["spec"], RAYJOB, "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert all(group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] for group in workers)
    submitter = job["spec"]["submitterPodTemplate"]
    pods = [group["template"] for group in (head, *workers)]
    for pod in pods:
        mounts = {mount["name"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
        assert mounts == {volume["name"] for volume in pod["spec"]["volumes"]}
        assert pod["spec"]["securityContext"] == {"fsGroup": 1000}  # the user of the image
    assert "--uid 1000" in (CLUSTER / "Dockerfile").read_text()
    # The token by the operator, which needs it too; the server's passwords for the server alone.
    assert cluster["authOptions"] == {"mode": "token", "secretName": "adafocus-ray"}
    assert [secrets_of(pod) for pod in (deployment["spec"]["template"], submitter, *pods)] == [
        ["adafocus-mlflow"],
        [],
        *[["adafocus"]] * len(pods),
    ]
    made = re.findall(r"create secret generic (\S+)", (CLUSTER / "kuberay.yaml").read_text())
    assert sorted(made) == ["adafocus", "adafocus-mlflow", "adafocus-ray"]
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert cluster["rayVersion"] == pinned["ray"]
    environment = yaml.safe_load(job["spec"]["runtimeEnvYAML"])
    of_fields(environment, {"working_dir": str, "env_vars": dict.fromkeys(environment["env_vars"], str)}, "runtimeEnv")
    assert set(JOB_READS) <= set(environment["env_vars"]) and environment["env_vars"]["TRIALS_FAILED_STATUS"] == "0"
    assert not any(word in name for name in environment["env_vars"] for word in ("PASSWORD", "TOKEN", "SECRET"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"replicas": "1"}, "replicas is '1'"),
        ({"replica": 1}, "replica"),
        ({"template": {"spec": {"containers": [{"name": "a", "image": "b", "envForm": []}]}}}, "envForm"),
        ({"template": {"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": 4}}}]}}}, "cpu is 4"),
    ],
)
def test_a_wrong_manifest_is_found(change: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        of_fields(change, RAYJOB["rayClusterSpec"]["workerGroupSpecs"][0], "workers")
    with pytest.raises(ValueError, match="name"):
        of_fields(
            {"template": {"spec": {"containers": [{"image": "b"}]}}}, {"template": "V1PodTemplateSpec"}, "workers"
        )


@pytest.mark.parametrize("file", [CLUSTER / "Dockerfile", ROOT / "Dockerfile"])
def test_an_image_is_built_from_nothing_but_the_project(file: Path) -> None:
    text = file.read_text()
    copied = {word for words in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for word in words.split()}
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*" and lines[-1] == "**/__pycache__"
    assert {line.removeprefix("!") for line in lines[1:-1]} == copied
    tracked = subprocess.run(["git", "ls-files", *copied], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split("/")[0] for line in tracked.splitlines()} == copied
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"}
    assert packages | {"pyproject.toml", "constraints.txt"} <= copied
    assert re.search("NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility", text)


def test_the_commands_options_exist() -> None:
    texts = {path.name: path.read_text() for path in CLUSTER.iterdir()}
    for verb in ("tune", "benchmark"):
        given = re.findall(rf"{verb.upper()}_ARGS(?:: |\": \"|:-)(--[^\"}}\n]+)", "\n".join(texts.values()))
        assert len(given) == 3
        for words in given:
            assert {word for word in words.split() if word.startswith("--")} <= options_of(verb), words
    verbs = re.findall(r"^adafocus (\w+) (.*)$", texts["job.sh"], re.MULTILINE)
    assert [verb for verb, _ in verbs] == ["preprocess", "tune", "benchmark", "report"]
    for verb, words in verbs:
        assert {word for word in words.split() if word.startswith("--")} <= options_of(verb), words


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
@pytest.mark.parametrize("argv", [["bash", str(CLUSTER / "mlflow.sh")], ["python", "-m", "pipelines.cli", "dashboard"]])
def test_the_server_reads_its_store_from_where_others_cannot_see_it(argv: list[str], tmp_path: Path) -> None:
    """Addresses of stores hold passwords, and every user of a machine may list the arguments of its processes."""
    store = f"sqlite:///{tmp_path}/secret.db"
    Tracker(tmp_path, store).experiment("known")
    port = 24000 + os.getpid() % 1000
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "MLFLOW_BACKEND_STORE_URI": store,
        "MLFLOW_ARTIFACTS_DESTINATION": str(tmp_path / "artifacts"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": "long enough for it",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "random",
        "MLFLOW_PORT": str(port),
    }
    if "dashboard" in argv:
        del environment["MLFLOW_BACKEND_STORE_URI"]
        environment["MLFLOW_TRACKING_URI"] = store
        argv = [*argv, "--runs", str(tmp_path), "--port", str(port)]
    with running(argv, tmp_path / "log", environment, tmp_path) as server:
        answers(f"http://127.0.0.1:{port}/health")
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        shown = [word for process in family for word in process.cmdline()]
        assert "mlflow" in " ".join(shown) and not any("secret.db" in word for word in shown), shown
        known = "api/2.0/mlflow/experiments/get-by-name?experiment_name=known"
        wanted = urllib.request.Request(f"http://127.0.0.1:{port}/{known}")
        login = base64.b64encode(b"admin:long enough for it").decode()
        wanted.add_header("Authorization", f"Basic {login}")
        with urllib.request.urlopen(wanted, timeout=30) as answer:
            assert json.load(answer)["experiment"]["name"] == "known"


@pytest.mark.ray
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
    argv = [python, "-c", "import ray, torch, mlflow; import pipelines"]
    bare = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    found = subprocess.run(argv, cwd=away, env=bare, capture_output=True)
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
