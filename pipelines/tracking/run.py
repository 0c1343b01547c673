"""One run in MLflow that is being written: parameters, metrics, tags, artifacts."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.entities import Run as MlflowRun
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from pipelines.tracking import tag_names
from preprocessing.addresses import without_secrets

FinalStatus = Literal["FINISHED", "FAILED", "KILLED"]
MODEL_VIEW = "workflowType=machine_learning"
"""Parameter of an address of the dashboard: show runs and curves, not traces of language models."""

log = logging.getLogger(__name__)


def short_digest(digest: str) -> str:
    """A data set's digest as MLflow keeps it: its beginning."""
    return digest[:36]


class Run:
    """A run in MLflow that is being written."""

    def __init__(self, client: MlflowClient, run: MlflowRun, uri: str) -> None:
        self.client, self.run_id, self.uri = client, run.info.run_id, uri
        self.experiment_id, self.name = run.info.experiment_id, str(run.info.run_name)
        self._params = dict(run.data.params)
        self._continued: dict[str, str] = {}

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Log parameters. Where the run has other values already, those stay, and the new ones become a tag."""
        fresh = [Param(key, str(value)) for key, value in values.items() if key not in self._params]
        for start in range(0, len(fresh), 100):
            self.client.log_batch(self.run_id, params=fresh[start : start + 100])
        self._params.update({param.key: param.value for param in fresh})
        changed = {key: str(value) for key, value in values.items() if self._params[key] != str(value)}
        if changed:
            self._continued |= changed
            self._tag({tag_names.CONTINUED: json.dumps(self._continued)[:5000]})

    def param(self, name: str) -> str:
        """A parameter's value; empty if it is not logged."""
        return str(self._params.get(name, ""))

    def metric_names(self) -> list[str]:
        """Names of all logged metrics, sorted."""
        return sorted(self.client.get_run(self.run_id).data.metrics)

    def entries(self, name: str) -> list[Metric]:
        """All logged values of a metric, by step and time."""
        return sorted(self.client.get_metric_history(self.run_id, name), key=lambda each: (each.step, each.timestamp))

    def curve(self, name: str) -> dict[int, float]:
        """A metric's value by step, in order; the newest where a step was logged twice."""
        return {entry.step: entry.value for entry in self.entries(name)}

    def log_metrics(self, values: Mapping[str, float], step: int = 0, time_ms: int | None = None) -> None:
        """Log metrics in one request. The same values with the same step and time again change nothing."""
        now = time_ms or int(time.time() * 1000)
        self.client.log_batch(self.run_id, metrics=[Metric(key, value, now, step) for key, value in values.items()])

    def log_rows(self, rows: Iterable[tuple[Mapping[str, float], int, int]]) -> None:
        """Log rows of (metrics, step, time_ms) in as few requests as the store allows."""
        metrics = [Metric(key, value, when, step) for values, step, when in rows for key, value in values.items()]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(self.run_id, metrics=metrics[start : start + 1000])

    def log_summary(self, prefix: str, values: Mapping[str, Any]) -> None:
        """Log plain values under a prefix: numbers as metrics, the rest as parameters."""
        numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
        self.log_metrics({f"{prefix}/{key}": float(value) for key, value in numbers.items()})
        self.log_params({f"{prefix}/{key}": value for key, value in values.items() if key not in numbers})

    def set_point(self, point: Mapping[str, Any]) -> None:
        """Record what this trial changes of its sweep's configuration."""
        self._tag({tag_names.POINT: json.dumps(point)})

    def set_stages(self, folders: Iterable[Path]) -> None:
        """Record the folders of the stages that this run needs."""
        self._tag({tag_names.STAGES: " ".join(folder.name for folder in folders)})

    def set_result(self, checkpoint: Path, digest: str, metric: str) -> None:
        """Record the folder of this trial's model, the digest of its data, and the metric by which it is compared."""
        self._tag({tag_names.CHECKPOINT: checkpoint.name, tag_names.DIGEST: digest, tag_names.METRIC: metric})

    def set_pruned(self, reason: str, epoch: int) -> None:
        """Record why the scheduler stopped this trial, and after which epoch of all stages."""
        self._tag({tag_names.PRUNED: reason, tag_names.PRUNED_EPOCH: str(epoch)})

    @property
    def logged_model(self) -> str:
        """Id of the logged model that this trial's checkpoint is; empty if it has none."""
        return str(self.client.get_run(self.run_id).data.tags.get(tag_names.LOGGED_MODEL, ""))

    def set_logged_model(self, model_id: str) -> None:
        """Record the logged model that this trial's checkpoint is."""
        self._tag({tag_names.LOGGED_MODEL: model_id})

    def artifact_names(self) -> list[str]:
        """Names of the files and folders at the top of its artifacts."""
        return [item.path for item in self.client.list_artifacts(self.run_id)]

    def set_model(self, uri: str) -> None:
        """Record which version in the model registry this benchmark has measured."""
        self._tag({tag_names.MODEL: uri})

    def _tag(self, values: Mapping[str, str]) -> None:
        self.client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in values.items()])

    def set_description(self, text: str) -> None:
        """Set the Markdown text that the dashboard shows on the run's page."""
        self.client.set_tag(self.run_id, tag_names.NOTE, text)

    def add_to_description(self, text: str) -> None:
        """Add a paragraph to it, unless it is there."""
        before = self.client.get_run(self.run_id).data.tags.get(tag_names.NOTE, "")
        if text not in before:
            self.set_description(f"{before}\n\n{text}".strip())

    @property
    def link(self) -> str:
        """A Markdown link to the run's page in the dashboard."""
        return f"[{self.name}](#/experiments/{self.experiment_id}/runs/{self.run_id}?{MODEL_VIEW})"

    @contextlib.contextmanager
    def system_metrics(self) -> Iterator[None]:
        """Log the load of this machine every ten seconds while the context is open, as system/<host>/..."""
        node = re.sub(r"[^\w.-]", "-", socket.gethostname())
        monitor = SystemMetricsMonitor(self.run_id, resume_logging=True, node_id=node, tracking_uri=self.uri)
        monitor.start()
        try:
            yield
        finally:
            monitor.finish()

    def log_dataset(self, name: str, digest: str, shards: str, context: str = "training") -> None:
        """Log the data set, by its digest, as an input of the run."""
        with warnings.catch_warnings(action="ignore"):  # two of its source classes fit a folder; either will do
            source = resolve_dataset_source(without_secrets(shards))
        dataset = MetaDataset(source, name=name, digest=short_digest(digest))
        entity = dataset._to_mlflow_entity()
        self.client.log_inputs(self.run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", context)])])

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file, or a folder with all it holds, into the run's artifacts."""
        if path.is_dir():
            self.client.log_artifacts(self.run_id, str(path), folder)
        else:
            self.client.log_artifact(self.run_id, str(path), folder)

    def finish(self, status: FinalStatus = "FINISHED", reason: str = "") -> None:
        """Close the run. `reason`: why it failed or was stopped."""
        if reason:
            self.client.set_tag(self.run_id, tag_names.REASON, without_secrets(reason)[:5000])
        self.client.set_terminated(self.run_id, status)

    def try_to_finish(self, status: FinalStatus, reason: str, pruned_epoch: int | None = None) -> None:
        """Close a run that did not end by itself; as pruned, if there is an epoch after which it was.

        An error of MLflow is only logged, for what went wrong before matters more.
        """
        try:
            if pruned_epoch is not None:
                self.set_pruned(reason, pruned_epoch)
            self.finish(status, reason)
        except Exception as error:
            log.error(
                "MLflow does not answer, so that it does not know that %s ended (%s): %s", self.name, reason, error
            )
