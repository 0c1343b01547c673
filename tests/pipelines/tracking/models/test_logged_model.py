"""A checkpoint's page among MLflow's models: where it comes from, and what it reaches on each data set."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from pipelines.tracking.client import Tracker
from pipelines.tracking.models import registry
from pipelines.tracking.models.logged_model import link_measured, log_checkpoint, log_scores
from pipelines.tracking.models.registry import MeasuredModel
from pipelines.tracking.run import Run


@pytest.fixture
def trial(tracker: Tracker, tmp_path: Path, request: pytest.FixtureRequest) -> Run:
    (tmp_path / "meta.json").write_text("{}")
    run = tracker.run("d", "trial", request.node.name, trial=request.node.name)
    run.log_artifact(tmp_path, "model")
    return run


def test_scores_stand_by_data_set(tracker: Tracker, trial: Run, tmp_path: Path) -> None:
    model_id = log_checkpoint(trial, "demo v1.0", tmp_path / "meta.json", {"method": "AdaFocus"}, "model")
    assert log_checkpoint(trial, "demo v1.0", tmp_path / "meta.json", {}, "model") == model_id, "it was logged twice"
    log_scores(trial, model_id, {"val_top1": 80.0}, "d", "1" * 64)
    bench = tracker.run("d", "benchmark", "b", trial=trial.run_id)
    link_measured(bench, model_id)
    log_scores(bench, model_id, {"val_top1": 81.0}, "d", "2" * 64)

    model = tracker.client.get_logged_model(model_id)
    assert (model.source_run_id, model.name, model.status.value) == (trial.run_id, trial.name, "READY")
    assert model.tags["mlflow.source.name"] == "adafocus train" and trial.link in model.tags["mlflow.note.content"]
    assert model.params == {"method": "AdaFocus"} and model.tags["adafocus.weights"].endswith("/artifacts/model")
    assert {(each.dataset_name, each.dataset_digest, each.value) for each in model.metrics or ()} == {
        ("d", "1" * 36, 80.0),
        ("d", "2" * 36, 81.0),
    }
    inputs, outputs = (tracker.client.get_run(run.run_id) for run in (bench, trial))
    assert [each.model_id for each in inputs.inputs.model_inputs] == [model_id]
    assert [each.model_id for each in outputs.outputs.model_outputs] == [model_id]
    assert tracker.client.get_run(trial.run_id).data.metrics["val_top1"] == 80.0


def test_the_registered_version_is_the_logged_model(tracker: Tracker, trial: Run, tmp_path: Path) -> None:
    model_id = log_checkpoint(trial, "linked", tmp_path / "meta.json", {}, "model")
    measured = MeasuredModel("linked", trial.run_id, "model", "1" * 16, "top1", 70.0, "about", model_id)
    for _ in range(2):
        registry.register(tracker, measured)
    version = tracker.client.get_model_version_by_alias("adafocus-linked", "best")
    versions = tracker.client.get_logged_model(model_id).tags["mlflow.modelVersions"]
    assert json.loads(versions) == [{"name": "adafocus-linked", "version": 1}]
    assert (
        version.tags["adafocus.logged_model"] == model_id
        and version.source
        and version.source.endswith("/artifacts/model")
    )


def test_a_server_without_logged_models_is_said(
    trial: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*arguments: object) -> None:
        raise MlflowException("API request to endpoint /logged-models failed with error code 404\nmore")

    monkeypatch.setattr(type(trial.client), "create_logged_model", refuse)
    with caplog.at_level(logging.WARNING):
        model_id = log_checkpoint(trial, "demo", tmp_path / "meta.json", {}, "model")
    assert model_id == "" and not trial.logged_model and "error code 404" in caplog.text
    log_scores(trial, model_id, {"val_top1": 80.0}, "d", "1" * 64)  # with the run alone
    link_measured(trial, model_id)
    assert trial.client.get_run(trial.run_id).data.metrics == {"val_top1": 80.0}
