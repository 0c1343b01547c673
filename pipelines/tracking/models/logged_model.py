"""Checkpoints as logged models of MLflow, whose pages show what made them and what they reach on each data set.

Weights stay among the artifacts of the trial's run: the logged model holds their record, and points there.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput, LoggedModelOutput, Metric
from mlflow.exceptions import MlflowException

from pipelines.tracking.run import Run, short_digest
from pipelines.tracking.tag_names import COMMIT, NOTE, PREFIX, SOURCE, SOURCE_TYPE, USER, VERSIONS

log = logging.getLogger(__name__)

MODEL_TYPE = "AdaFocus"


def log_checkpoint(run: Run, recipe: str, record: Path, params: Mapping[str, str], weights: str) -> str:
    """Make a trial's checkpoint a logged model, unless it is one; its id. Empty, with a warning, where the server is
    one of MLflow 2, which has none.

    `record` is a file that the model holds, `weights` the folder of the run's artifacts where the weights are.
    """
    if run.logged_model:
        return run.logged_model
    client, name = run.client, re.sub(r"[^\w-]+", "-", run.name)[:100] or "checkpoint"
    try:
        trained = client.get_run(run.run_id)
        place = f"{trained.info.artifact_uri}/{weights}"
        about = f"Trained by {run.link}, where its weights are: `adafocus predict VIDEO --run {run.run_id}` uses it."
        tags = {f"{PREFIX}weights": place, f"{PREFIX}recipe": recipe, NOTE: about}
        tags |= {tag: trained.data.tags[tag] for tag in (SOURCE, SOURCE_TYPE, COMMIT, USER) if tag in trained.data.tags}
        model = client.create_logged_model(
            run.experiment_id, name, run.run_id, tags, {key: str(value) for key, value in params.items()}, MODEL_TYPE
        )
        client.log_model_artifact(model.model_id, str(record))
        client.finalize_logged_model(model.model_id, "READY")
        client.log_outputs(run.run_id, [LoggedModelOutput(model.model_id, step=0)])
    except MlflowException as error:
        log.warning("%s is not shown among MLflow's models: %s", run.name, error.message.splitlines()[0])
        return ""
    run.set_logged_model(model.model_id)
    return str(model.model_id)


def log_scores(run: Run, model_id: str, scores: Mapping[str, float], dataset: str, digest: str) -> None:
    """Log what a model reaches on a data set: with the run, and on the model's own page."""
    now, of = int(time.time() * 1000), short_digest(digest)
    linked = {"model_id": model_id, "dataset_name": dataset, "dataset_digest": of} if model_id else {}
    run.client.log_batch(run.run_id, [Metric(key, value, now, 0, **linked) for key, value in scores.items()])


def link_version(client: MlflowClient, model_id: str, name: str, version: int) -> None:
    """Show on the page of a logged model that it is this version of a registered model."""
    known = json.loads(client.get_logged_model(model_id).tags.get(VERSIONS, "[]"))
    mine = {"name": name, "version": version}
    if mine not in known:
        client.set_logged_model_tags(model_id, {VERSIONS: json.dumps([*known, mine])})


def link_measured(run: Run, model_id: str) -> None:
    """Show on the page of a benchmark's run which logged model it has measured."""
    if model_id:
        run.client.log_inputs(run.run_id, models=[LoggedModelInput(model_id)])
