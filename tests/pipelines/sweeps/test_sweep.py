"""A sweep from end to end with a real local Ray and a real SQLite store: trials, benchmark, report."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.evaluation import multiply_adds
from adafocus.training.reports import Options
from pipelines.benchmarks.benchmark import Measurement, measure_checkpoint
from pipelines.benchmarks.benchmark_logger import log_benchmark
from pipelines.benchmarks.options import BenchmarkOptions, parse_precisions
from pipelines.benchmarks.rows import BENCHMARK_ROWS, PROBES
from pipelines.paths import Places
from pipelines.ray_runtime.session import ray_session
from pipelines.reporting.collect import collect_report
from pipelines.reporting.tables import to_json
from pipelines.sweeps.driver import run_sweep
from pipelines.sweeps.outcomes import TrialOutcome
from pipelines.sweeps.search.space import Space
from pipelines.sweeps.sweep import Sweep
from pipelines.tracking import metric_names
from pipelines.tracking.client import Tracker
from pipelines.tracking.models.checkpoints import find_checkpoint
from pipelines.tracking.run import Run

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def places(synthetic_shards: str, tmp_path_factory: pytest.TempPathFactory) -> Places:
    runs = tmp_path_factory.mktemp("runs")
    return Places.of(synthetic_shards, runs, f"sqlite:///{runs}/mlflow.db")


@pytest.fixture(scope="module", autouse=True)
def one_ray() -> Iterator[None]:
    with ray_session(None, dashboard=True, worker_logs=False):
        yield


def sweep(config: Config, places: Places, name: str, **grid: list[object]) -> list[TrialOutcome]:
    space = Space({key.replace("__", "."): values for key, values in grid.items()})
    return run_sweep(Sweep(name, config, "demo", space, places, Options(device="cpu"))).trials


@pytest.fixture(scope="module")
def finished(tiny_config: Config, places: Places, one_ray: None) -> list[TrialOutcome]:
    return sweep(tiny_config, places, "s", ppo__gamma=[0.5, 0.7])


def test_trials_share_what_they_can(finished: list[TrialOutcome], places: Places) -> None:
    assert [result.error for result in finished] == ["", ""]
    assert {result.point["ppo.gamma"] for result in finished} == {0.5, 0.7}
    stages = sorted(folder.name.split("-")[0] for folder in places.runs.glob("*-*") if folder.is_dir())
    assert stages == ["finetune", "finetune", "ppo", "ppo", "pretrain", "warmup"]


def test_mlflow_has_every_trial_with_every_epoch(finished: list[TrialOutcome], places: Places) -> None:
    tracker = Tracker.at(places)
    (parent,) = tracker.find("sweep", sweep="s")
    trials = tracker.find("trial", sweep="s")
    assert len(trials) == 2 and parent.info.status == "FINISHED"
    for trial in trials:
        assert trial.info.status == "FINISHED"
        assert trial.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert trial.data.params["model.patch_size"] == "16"
        assert len(trial.inputs.dataset_inputs) == 1
        for stage, steps in {"pretrain": [1, 2], "warmup": [3, 4], "ppo": [5, 6], "finetune": [7, 8]}.items():
            history = tracker.client.get_metric_history(trial.info.run_id, f"{stage}/seconds")
            assert [entry.step for entry in history] == steps
        files = [item.path for item in tracker.client.list_artifacts(trial.info.run_id, "model")]
        assert "model/meta.json" in files and any(path.endswith(".safetensors") for path in files)


def test_mlflow_shows_the_sweep_to_a_reader(finished: list[TrialOutcome], places: Places) -> None:
    tracker = Tracker.at(places)
    (parent,) = tracker.find("sweep", sweep="s")
    trials = tracker.find("trial", sweep="s")
    note = parent.data.tags["mlflow.note.content"]
    for trial in trials:
        score = trial.data.metrics["score"]
        assert f"runs/{trial.info.run_id}?" in note and f"| {score:.1f} | finished |" in note
        model = tracker.client.get_logged_model(trial.data.tags["adafocus.logged_model"])
        reached = {metric.key: metric.value for metric in model.metrics or ()}
        assert reached["val_top1"] == score == trial.data.metrics["finetune/val_top1"]
        assert model.params is not None and model.params["stage"] == "finetune"
        steps = [entry.step for entry in tracker.client.get_metric_history(trial.info.run_id, "score")]
        assert steps == list(range(1, 9)), "one clock through all stages"
    assert "`sweep.html`" in note
    page = Path(tracker.client.download_artifacts(parent.info.run_id, "sweep.html")).read_text()
    found = re.search(r"^const DATA = (.*);$", page, re.MULTILINE)
    assert found
    data = json.loads(found[1])
    assert data["settings"] == ["ppo.gamma"] and {trial["values"]["ppo.gamma"] for trial in data["trials"]} == {
        0.5,
        0.7,
    }
    assert {trial["score"] for trial in data["trials"]} == {trial.data.metrics["score"] for trial in trials}
    assert data["status"] == "finished" and "too few" in data["importance"]["warning"]


def check_predictions(places: Places, run: Run, result: Measurement) -> None:
    """Every accuracy of the table, and of every prefix, can be recomputed from the Parquet files alone."""
    from sklearn.metrics import average_precision_score  # slow to import: not in every process that collects tests

    client = Tracker.at(places).client
    for row in result.rows:
        file = client.download_artifacts(run.run_id, f"predictions/{row.key()}.parquet")
        columns = pq.read_table(file).to_pydict()
        assert len(set(columns["clip_id"])) == len(columns["clip_id"]) == result.facts["clips"]
        labels = [clip[0] for clip in columns["labels"]]
        prefixes = np.asarray(columns["prefix_logits"])  # N, T, K
        assert np.asarray(columns["logits"]).tolist() == prefixes[:, -1].tolist()
        best = np.argsort(-prefixes, axis=-1)
        assert row.top1 == pytest.approx(100 * np.mean(best[:, -1, 0] == labels))
        among_five = (best[:, -1, :5] == np.array(labels)[:, None]).any(1)
        assert row.top5 == pytest.approx(100 * np.mean(among_five))
        exact = np.exp(prefixes - prefixes.max(-1, keepdims=True))
        shares = exact / exact.sum(-1, keepdims=True)
        present = sorted(set(labels))
        precisions = [average_precision_score(np.equal(labels, k), shares[:, -1, k]) for k in present]
        assert row.map == pytest.approx(100 * np.mean(precisions), abs=1e-4)
        if "hit" in columns:
            assert row.hit_rate == pytest.approx(100 * np.mean(columns["hit"]), abs=1e-4)
        curve = {t + 1: pytest.approx(100 * np.mean(best[:, t, 0] == labels)) for t in range(prefixes.shape[1])}
        assert {point["frames"]: point["top1"] for point in row.online} == curve
        assert row.online[-1]["gflops"] == row.gflops == pytest.approx(len(curve) * row.online[0]["gflops"])
        if row.precision == "float32":
            assert Tracker.at(places).open(run.run_id).curve(f"online/{row.key()}/top1") == curve


def check_artifacts(places: Places, run: Run, trial: str) -> None:
    """What the issue of a run promises is there, and leads from one to the other."""
    tracker = Tracker.at(places)
    for owner, pictures in (
        (run.run_id, ("patches", "confusion", "classes", "online", "compute")),
        (trial, ("patches", "reward")),
    ):
        for name in pictures:
            picture = Image.open(tracker.client.download_artifacts(owner, f"{name}.png"))
            assert min(picture.size) > 100, name
    bench_run, trial_run = tracker.client.get_run(run.run_id), tracker.client.get_run(trial)
    assert trial in bench_run.data.tags["mlflow.note.content"] and bench_run.data.tags["adafocus.trial"] == trial
    assert run.run_id in trial_run.data.tags["mlflow.note.content"]
    for key in ("git_commit", "version.torch", "device", "recipe", "ppo.gamma"):
        assert trial_run.data.params[key] and bench_run.data.params[key], key
    for found, context in ((bench_run, "evaluation"), (trial_run, "training")):
        (used,) = found.inputs.dataset_inputs
        assert (used.dataset.digest, used.tags[0].value) == (bench_run.data.params["digest"], context)


def test_prefixes_cost_their_share_of_frames(tiny_config: Config) -> None:
    whole = multiply_adds.count(tiny_config, 10)["total"]
    for frames in (1, 3):
        part = multiply_adds.count(tiny_config, 10, num_frames=frames)["total"]
        assert part == pytest.approx(whole * frames / tiny_config.data.num_frames)


def test_benchmark_and_report(finished: list[TrialOutcome], places: Places, tmp_path: Path) -> None:
    chosen = find_checkpoint(places, run=None, sweep="s", folder=None)
    folder, trial = chosen.folder, chosen.run_id
    assert chosen.name.startswith("s gamma=")
    scores = {trial.score for trial in finished}
    (best,) = Tracker.at(places).find("trial", trial=folder.name.split("-")[1])
    assert best.data.metrics["finetune/val_top1"] == max(scores)
    options = BenchmarkOptions(batch_size=4, precisions=parse_precisions("float32,bf16"), probe=True)
    result = measure_checkpoint(folder, places, Options(device="cpu"), options)
    run = log_benchmark(result, chosen, places)
    methods = [kind.label.format(title="AdaFocus") for kind in BENCHMARK_ROWS]
    kinds = ("probe", "attentive probe")
    probes = [f"whole frames: {kind} on {network}" for network, _ in PROBES for kind in kinds]
    assert [row.method for row in result.rows] == [*methods, *(f"{method}, bf16" for method in methods), *probes]
    assert all(row.latency_ms > 0 and row.memory_mb > 4 * 4 * 3 * 40 * 40 / 1e6 for row in result.rows)
    assert result.facts["clips"] == 10
    by_patches = {row.key(): row for row in result.rows}
    assert by_patches["policy"].parameters == result.facts["parameters.total"]
    assert by_patches["policy"].gflops == result.facts["gflops.total"]
    assert by_patches["policy"].gflops > by_patches["random"].gflops > by_patches["glancer"].gflops > 0
    for patches in ("policy", "random", "centre", "oracle"):
        assert 0 <= by_patches[patches].hit_rate <= 100
    check_predictions(places, run, result)
    check_artifacts(places, run, trial)
    model = Tracker.at(places).client.get_model_version_by_alias("adafocus-demo", "best")
    assert model.run_id == trial and float(model.tags[f"adafocus.score.{result.facts['digest']}"]) == max(scores)
    tracker = Tracker.at(places)
    logged = tracker.open(trial).metric_names() + tracker.open(run.run_id).metric_names()
    unknown = [name for name in logged if metric_names.explain(name) is None]
    assert not unknown, "not in the table of names"
    # Where gradients are clipped; of models that skip frames; every ten seconds; of the parent run and other methods.
    rare = {"<stage>/grad_norm", "<stage>/val_looked", "system/<host>/<what>"}
    rare |= {
        shown for shown, _ in metric_names.METRICS if shown.startswith(("trials", "reuse/", "exit/", "skip/", "joint/"))
    }
    assert {shown for shown, _ in metric_names.METRICS} - {metric_names.explain(name) for name in logged} <= rare
    # The report has these rows from MLflow alone, and measuring again does not add a run.
    log_benchmark(result, chosen, places)
    (reported,) = collect_report(places, "s").benchmarks
    assert reported.rows == result.table() and reported.trial == trial
    assert json.loads(to_json([reported]))[0]["facts"]["clips"] == 10


def test_a_failed_trial_is_named_and_stops_no_other(tiny_config: Config, places: Places) -> None:
    config = override(tiny_config, {"finetune.epochs": 1})
    results = sweep(config, places, "f", finetune__head_lr=[1e-3, 1e30])
    errors = {float(result.point["finetune.head_lr"]): result.error for result in results}
    assert errors[1e-3] == ""
    assert "the loss is nan on the batch of clips" in errors[1e30] or "the loss is inf" in errors[1e30]
    runs = {run.data.params["finetune.head_lr"]: run for run in Tracker.at(places).find("trial", sweep="f")}
    assert runs["1e+30"].info.status == "FAILED" and "NonFiniteLoss" in runs["1e+30"].data.tags["adafocus.reason"]
    assert runs["0.001"].info.status == "FINISHED"
