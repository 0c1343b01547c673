"""A sweep from end to end with a real local Ray and a real SQLite store: trials, benchmark, report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from adafocus import metrics
from adafocus.config import Config, override
from adafocus.stages.trainer import Options
from pipelines import benchmark as bench
from pipelines import report
from pipelines.ray_session import ray_session
from pipelines.record import track
from pipelines.space import Space
from pipelines.train import Places
from pipelines.tune import Machines, Sweep, TrialResult, run_sweep, shared_stages


@pytest.fixture(scope="module")
def places(synthetic_shards: str, tmp_path_factory: pytest.TempPathFactory) -> Places:
    runs = tmp_path_factory.mktemp("runs")
    return Places.of(synthetic_shards, runs, f"sqlite:///{runs}/mlflow.db")


@pytest.fixture(scope="module", autouse=True)
def one_ray() -> Iterator[None]:
    with ray_session(None, dashboard=True, worker_logs=False):
        yield


def sweep(config: Config, places: Places, name: str, **grid: list[object]) -> list[TrialResult]:
    space = Space({key.replace("__", "."): values for key, values in grid.items()})
    machines = Machines(max_failures=0)
    return run_sweep(Sweep(name, config, "demo", space, places, Options(device="cpu"), machines))


@pytest.fixture(scope="module")
def finished(tiny_config: Config, places: Places, one_ray: None) -> list[TrialResult]:
    return sweep(tiny_config, places, "s", ppo__gamma=[0.5, 0.7])


def test_shared_stages_are_those_that_no_key_changes() -> None:
    assert shared_stages({"ppo.gamma"}) == ("pretrain", "warmup")
    assert shared_stages({"finetune.head_lr"}) == ("pretrain", "warmup", "ppo")
    assert shared_stages({"seed"}) == ()
    assert shared_stages(set()) == ("pretrain", "warmup", "ppo", "finetune")


def test_trials_share_what_they_can(finished: list[TrialResult], places: Places) -> None:
    assert [result.error for result in finished] == ["", ""]
    assert {result.params["ppo.gamma"] for result in finished} == {0.5, 0.7}
    stages = sorted(folder.name.split("-")[0] for folder in places.runs.glob("*-*") if folder.is_dir())
    assert stages == ["finetune", "finetune", "ppo", "ppo", "pretrain", "warmup"]


def test_mlflow_has_every_trial_with_every_epoch(finished: list[TrialResult], places: Places) -> None:
    tracker = places.tracker()
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


def test_benchmark_and_report(finished: list[TrialResult], places: Places, tmp_path: Path) -> None:
    folder, trial, name = bench.find_checkpoint(places, run=None, sweep="s", folder=None)
    assert name.startswith("s gamma=")
    scores = {trial.score for trial in finished}
    assert places.tracker().find("trial", trial=folder.name.split("-")[1])[0].data.metrics["finetune/val_top1"] == max(
        scores
    )
    result = bench.benchmark(folder, places, Options(device="cpu"), batch_size=4)
    run = track(result, folder, places, trial, name)
    assert [row.method for row in result.rows] == [method for method, _, _ in bench.METHODS]
    assert result.facts["clips"] == 10
    by_patches = {row.patches: row for row in result.rows}
    assert by_patches["policy"].gflops > by_patches["random"].gflops > by_patches["glancer"].gflops > 0
    for patches in ("policy", "random", "centre"):
        assert 0 <= by_patches[patches].hit_rate <= 100
    # Any number of the table can be recomputed from the predictions.
    table = pq.read_table(places.tracker().client.download_artifacts(run.run_id, "predictions/finetune-policy.parquet"))
    labels = torch.tensor(table["labels"].to_pylist())
    logits = torch.tensor(table["logits"].to_pylist())
    assert metrics.topk_accuracy(logits, labels) == by_patches["policy"].top1
    strips = Image.open(places.tracker().client.download_artifacts(run.run_id, "patches.png"))
    assert strips.width > 4 * 160
    # The report has these rows from MLflow alone, and measuring again does not add a run.
    track(result, folder, places, trial, name)
    (reported,) = report.collect(places, "s")
    assert reported["rows"] == result.table()
    report.write([reported], tmp_path / "RESULTS.md")
    text = (tmp_path / "RESULTS.md").read_text()
    assert all(row.method in text for row in result.rows)
    assert json.loads(report.as_json([reported]))[0]["facts"]["clips"] == 10


def test_a_failed_trial_is_named_and_stops_no_other(tiny_config: Config, places: Places) -> None:
    config = override(tiny_config, {"finetune.epochs": 1})
    results = sweep(config, places, "f", finetune__head_lr=[1e-3, 1e30])
    errors = {float(result.params["finetune.head_lr"]): result.error for result in results}
    assert errors[1e-3] == ""
    assert "the loss is nan on the batch of clips" in errors[1e30] or "the loss is inf" in errors[1e30]
    runs = {run.data.params["finetune.head_lr"]: run for run in places.tracker().find("trial", sweep="f")}
    assert runs["1e+30"].info.status == "FAILED" and "NonFiniteLoss" in runs["1e+30"].data.tags["adafocus.reason"]
    assert runs["0.001"].info.status == "FINISHED"
