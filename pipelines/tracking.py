"""The only place that talks to MLflow: one store, runs that are found again by their tags, metrics in batches.

Experiment = data set. A sweep is a parent run, each trial a child, each benchmark a run of its own. A run is identified
by its tags (`adafocus.kind`, `adafocus.sweep`, `adafocus.trial`), so that work which was killed goes on in its run.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.artifacts import load_dict
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.utils.git_utils import get_git_commit

from preprocessing.schema import DatasetInfo, UserError

Kind = Literal["sweep", "trial", "benchmark", "preprocess", "shared"]
Ending = Literal["FINISHED", "FAILED", "KILLED"]
PREFIX = "adafocus."
MODEL_TRAINING = {"mlflow.experimentKind": "custom_model_development"}
"""Lets the dashboard show runs and curves, not traces of language models."""


def default_uri(runs: Path) -> str:
    """MLFLOW_TRACKING_URI, else a SQLite file below `runs`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(runs / 'mlflow.db').absolute()}"


class Tracker:
    """A tracking store. Making one initialises the store, under a lock: do it in the driver before workers start."""

    def __init__(self, runs: Path, uri: str | None = None) -> None:
        self.runs = runs.absolute()
        self.uri = uri or default_uri(self.runs)
        self.runs.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # not a line per migration of a new store
        try:
            with FileLock(self.runs / ".mlflow.lock"):  # two processes that open a new SQLite store at once break it
                self.client = MlflowClient(self.uri)
                self.client.search_experiments(max_results=1)
        except MlflowException as error:
            raise UserError(f"the MLflow store {self.uri} cannot be used: {error.message.splitlines()[0]}") from None

    def experiment(self, name: str) -> str:
        """Id of the experiment, made if need be. A local store keeps its artifacts below `runs` too."""
        with FileLock(self.runs / ".mlflow.lock"):
            found = self.client.get_experiment_by_name(name)
            if found:
                return found.experiment_id
            local = self.uri.startswith("sqlite:")
            place = (self.runs / "artifacts" / name).as_uri() if local else None
            return self.client.create_experiment(name, place, tags=MODEL_TRAINING)

    def run(self, dataset: str, kind: Kind, name: str, *, parent: str | None = None, **identity: str) -> Run:
        """The run with this kind and identity, in the data set's experiment: found again, or made."""
        experiment = self.experiment(dataset)
        tags = {f"{PREFIX}{key}": value for key, value in {"kind": kind, **identity}.items()}
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found = self.client.search_runs([experiment], query, max_results=1)
        if found:
            run = found[0]
            self.client.update_run(run.info.run_id, status="RUNNING")
        else:
            links = {"mlflow.parentRunId": parent} if parent else {}
            run = self.client.create_run(experiment, tags={**tags, **links, **_provenance()}, run_name=name)
        return Run(self.client, run)

    def find(self, kind: Kind, **identity: str) -> list[MlflowRun]:
        """All runs of a kind, newest first, over all experiments."""
        experiments = [experiment.experiment_id for experiment in self.client.search_experiments()]
        wanted = {f"{PREFIX}{key}": value for key, value in {"kind": kind, **identity}.items()}
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in wanted.items())
        return list(self.client.search_runs(experiments, query, max_results=1000)) if experiments else []

    def unfinished(self, kind: Kind, **identity: str) -> list[Run]:
        """Those of the runs that were not closed."""
        return [Run(self.client, run) for run in self.find(kind, **identity) if run.info.status == "RUNNING"]

    def read_json(self, run: MlflowRun, name: str) -> Any:
        """A JSON artifact of a run."""
        return load_dict(f"{run.info.artifact_uri}/{name}")


class Run:
    """One MLflow run that is being written."""

    def __init__(self, client: MlflowClient, run: MlflowRun) -> None:
        self.client, self.run_id = client, run.info.run_id
        self._params = dict(run.data.params)

    @classmethod
    def open(cls, tracker: Tracker, run_id: str) -> Run:
        """A run by its id."""
        return cls(tracker.client, tracker.client.get_run(run_id))

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters that are not logged yet (they cannot be changed once logged)."""
        fresh = [Param(key, str(value)) for key, value in values.items() if key not in self._params]
        for start in range(0, len(fresh), 100):
            self.client.log_batch(self.run_id, params=fresh[start : start + 100])
        self._params.update({param.key: param.value for param in fresh})

    def metrics(self, values: Mapping[str, float], step: int = 0, time_ms: int | None = None) -> None:
        """Log metrics in one request. The same values with the same step and time again change nothing."""
        now = time_ms or int(time.time() * 1000)
        self.client.log_batch(self.run_id, metrics=[Metric(key, value, now, step) for key, value in values.items()])

    def summary(self, prefix: str, values: Mapping[str, Any]) -> None:
        """Log plain values under a prefix: numbers as metrics, the rest as parameters."""
        numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
        self.metrics({f"{prefix}/{key}": float(value) for key, value in numbers.items()})
        self.params({f"{prefix}/{key}": value for key, value in values.items() if key not in numbers})

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags below the project's prefix."""
        tags = [RunTag(f"{PREFIX}{key}", str(value)) for key, value in values.items()]
        self.client.log_batch(self.run_id, tags=tags)

    def dataset(self, info: DatasetInfo, digest: str, shards: str) -> None:
        """Log the data set, by its digest, as an input of the run."""
        with warnings.catch_warnings(action="ignore"):  # two of its source classes fit a folder; either will do
            source = resolve_dataset_source(shards)
        dataset = MetaDataset(source, name=info.name, digest=digest[:36])
        entity = dataset._to_mlflow_entity()
        self.client.log_inputs(self.run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])])

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file, or a folder with all it holds, into the run's artifacts."""
        if path.is_dir():
            self.client.log_artifacts(self.run_id, str(path), folder)
        else:
            self.client.log_artifact(self.run_id, str(path), folder)

    def json(self, name: str, value: Any) -> None:
        """Write a value as a JSON artifact."""
        self.text(name, json.dumps(value, indent=2))

    def text(self, name: str, text: str) -> None:
        """Write a text artifact."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_text(text)
            self.client.log_artifact(self.run_id, str(path))

    def finish(self, status: Ending = "FINISHED", reason: str = "") -> None:
        """Close the run; `reason` says why one failed."""
        if reason:
            self.tags({"reason": reason[:5000]})
        self.client.set_terminated(self.run_id, status)


def _provenance() -> dict[str, str]:
    versions = {name: version(name) for name in ("torch", "torchvision", "ray", "mlflow", "adafocus")}
    return {
        **{f"{PREFIX}version.{name}": value for name, value in versions.items()},
        f"{PREFIX}host.python": platform.python_version(),
        "mlflow.source.git.commit": get_git_commit(__file__) or "unknown",
    }
