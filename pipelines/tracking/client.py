"""The only place that talks to MLflow: one store, runs that are found again by their tags, metrics in batches.

Experiment = data set. A sweep is a parent run, each trial a child, each benchmark a run of its own. A run is identified
by its tags (`adafocus.kind`, `adafocus.sweep`, `adafocus.trial`), so that work which was killed goes on in its run.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import platform
import re
import socket
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import requests
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from pipelines.paths import Places, absolute_tracking_uri
from pipelines.version import commit
from preprocessing.addresses import without_secrets
from preprocessing.schema import DatasetInfo, UserError

Kind = Literal["sweep", "trial", "benchmark", "preprocess", "shared"]
Ending = Literal["FINISHED", "FAILED", "KILLED"]
PREFIX = "adafocus."
REASON = f"{PREFIX}reason"
"""Tag: why a run failed or was stopped."""
MODEL_TRAINING = {"mlflow.experimentKind": "custom_model_development"}
"""Lets the dashboard show runs and curves, not traces of language models."""
MODEL_VIEW = "workflowType=machine_learning"
"""The same in an address of the dashboard, which else opens the other view at a first visit."""


LASTING = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EEXIST),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ENOMEM),
}
"""Errors of files that do not pass by themselves."""


class Tracker:
    """A tracking store. Making one initialises the store, under a lock: do it in the driver before workers start."""

    def __init__(self, runs: Path, uri: str | None = None) -> None:
        self.runs = runs.absolute()
        self.uri = absolute_tracking_uri(self.runs, uri)
        self.runs.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # which is for rows of --json
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # not a line per migration of a new store
        try:
            with FileLock(self.runs / ".mlflow.lock"):  # two processes that open a new SQLite store at once break it
                self.client = MlflowClient(self.uri)
                self.client.search_experiments(max_results=1)
        except MlflowException as error:
            reason = error.message.splitlines()[0]
            raise UserError(without_secrets(f"the MLflow store {self.uri} cannot be used: {reason}")) from None

    @classmethod
    def at(cls, places: Places) -> Tracker:
        """The store of these places."""
        return cls(places.runs, places.tracking_uri)

    def experiment(self, name: str) -> str:
        """Id of the experiment, made if need be. A local store keeps its artifacts below `runs` too."""
        with FileLock(self.runs / ".mlflow.lock"):
            found = self.client.get_experiment_by_name(name)
            if found:
                return found.experiment_id
            served = self.uri.startswith("http")  # then the server says where artifacts go
            place = None if served else (self.runs / "artifacts" / name).as_uri()
            return self.client.create_experiment(name, place, tags=MODEL_TRAINING)

    def run(self, dataset: str, kind: Kind, name: str, *, parent: str | None = None, **identity: str) -> Run:
        """The run with this kind and identity, in the data set's experiment: found again, or made."""
        experiment = self.experiment(dataset)
        tags = {f"{PREFIX}{key}": value for key, value in {"kind": kind, **identity}.items()}
        found = self.client.search_runs([experiment], _query(tags), max_results=1)
        if found:
            run = found[0]
            self.client.update_run(run.info.run_id, status="RUNNING")
            if REASON in run.data.tags:  # why it ended before says nothing of how it ends now
                self.client.delete_tag(run.info.run_id, REASON)
        else:
            links = {"mlflow.parentRunId": parent} if parent else {}
            source = {"mlflow.source.git.commit": commit()}
            run = self.client.create_run(experiment, tags={**tags, **links, **source}, run_name=name)
        opened = Run(self.client, run, self.uri)
        opened.params(provenance())
        return opened

    def find(self, kind: Kind, **identity: str) -> list[MlflowRun]:
        """All runs of a kind, newest first, over all experiments."""
        experiments = [experiment.experiment_id for experiment in self.client.search_experiments()]
        query = _query({f"{PREFIX}{key}": value for key, value in {"kind": kind, **identity}.items()})
        found: list[MlflowRun] = []
        token = "" if experiments else None
        while token is not None:
            page = self.client.search_runs(experiments, query, max_results=1000, page_token=token or None)
            found, token = found + list(page), page.token or None
        return found

    def unfinished(self, kind: Kind, **identity: str) -> list[Run]:
        """Those of the runs that were not closed."""
        return [Run(self.client, run, self.uri) for run in self.find(kind, **identity) if run.info.status == "RUNNING"]

    def shards_of(self, run_id: str) -> str | None:
        """Where the data set of a run lies (or lay), if that was logged."""
        for given in self.client.get_run(run_id).inputs.dataset_inputs:
            found = json.loads(given.dataset.source).get("uri")
            if found:
                return str(found)
        return None

    def read_json(self, run: MlflowRun, name: str) -> Any:
        """A JSON artifact of a run; None if there is none."""
        if name not in {item.path for item in self.client.list_artifacts(run.info.run_id)}:
            return None
        with tempfile.TemporaryDirectory() as folder:
            return json.loads(Path(self.client.download_artifacts(run.info.run_id, name, folder)).read_text())


class Run:
    """One MLflow run that is being written."""

    def __init__(self, client: MlflowClient, run: MlflowRun, uri: str) -> None:
        self.client, self.run_id, self.uri = client, run.info.run_id, uri
        self.experiment_id, self.name = run.info.experiment_id, str(run.info.run_name)
        self._params = dict(run.data.params)
        self._continued: dict[str, str] = {}

    @classmethod
    def open(cls, tracker: Tracker, run_id: str) -> Run:
        """A run by its id."""
        return cls(tracker.client, tracker.client.get_run(run_id), tracker.uri)

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters. A run that goes on with others keeps those that it has, and is tagged with the others."""
        fresh = [Param(key, str(value)) for key, value in values.items() if key not in self._params]
        for start in range(0, len(fresh), 100):
            self.client.log_batch(self.run_id, params=fresh[start : start + 100])
        self._params.update({param.key: param.value for param in fresh})
        changed = {key: str(value) for key, value in values.items() if self._params[key] != str(value)}
        if changed:
            self._continued |= changed
            self.tags({"continued_with": json.dumps(self._continued)[:5000]})

    def param(self, name: str) -> str:
        """A parameter's value; empty if it is not logged."""
        return str(self._params.get(name, ""))

    def metric_names(self) -> list[str]:
        """Of all metrics that are logged, sorted."""
        return sorted(self.client.get_run(self.run_id).data.metrics)

    def entries(self, name: str) -> list[Metric]:
        """All values of a metric that were logged, by step and time."""
        return sorted(self.client.get_metric_history(self.run_id, name), key=lambda each: (each.step, each.timestamp))

    def curve(self, name: str) -> dict[int, float]:
        """A metric's value by step, in order; the newest where a step was logged twice."""
        return {entry.step: entry.value for entry in self.entries(name)}

    def metrics(self, values: Mapping[str, float], step: int = 0, time_ms: int | None = None) -> None:
        """Log metrics in one request. The same values with the same step and time again change nothing."""
        now = time_ms or int(time.time() * 1000)
        self.client.log_batch(self.run_id, metrics=[Metric(key, value, now, step) for key, value in values.items()])

    def history(self, rows: Iterable[tuple[Mapping[str, float], int, int]]) -> None:
        """Log many steps' (metrics, step, time_ms) in as few requests as the store allows."""
        metrics = [Metric(key, value, when, step) for values, step, when in rows for key, value in values.items()]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(self.run_id, metrics=metrics[start : start + 1000])

    def summary(self, prefix: str, values: Mapping[str, Any]) -> None:
        """Log plain values under a prefix: numbers as metrics, the rest as parameters."""
        numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
        self.metrics({f"{prefix}/{key}": float(value) for key, value in numbers.items()})
        self.params({f"{prefix}/{key}": value for key, value in values.items() if key not in numbers})

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags below the project's prefix."""
        tags = [RunTag(f"{PREFIX}{key}", str(value)) for key, value in values.items()]
        self.client.log_batch(self.run_id, tags=tags)

    def describe(self, text: str) -> None:
        """The description in Markdown that the dashboard shows on the run's page."""
        self.client.set_tag(self.run_id, "mlflow.note.content", text)

    @property
    def link(self) -> str:
        """Markdown that leads to the run's page in the dashboard."""
        return f"[{self.name}](#/experiments/{self.experiment_id}/runs/{self.run_id}?{MODEL_VIEW})"

    @contextlib.contextmanager
    def system_metrics(self) -> Iterator[None]:
        """Log what the machine does meanwhile, every ten seconds, as system/<host>/..., from a thread of its own."""
        node = re.sub(r"[^\w.-]", "-", socket.gethostname())
        monitor = SystemMetricsMonitor(self.run_id, resume_logging=True, node_id=node, tracking_uri=self.uri)
        monitor.start()
        try:
            yield
        finally:
            monitor.finish()

    def dataset(self, info: DatasetInfo, digest: str, shards: str, context: str = "training") -> None:
        """Log the data set, by its digest, as an input of the run."""
        with warnings.catch_warnings(action="ignore"):  # two of its source classes fit a folder; either will do
            source = resolve_dataset_source(without_secrets(shards))
        dataset = MetaDataset(source, name=info.name, digest=digest[:36])
        entity = dataset._to_mlflow_entity()
        self.client.log_inputs(self.run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", context)])])

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

    def model(self, code: Path, checkpoint: Path, packages: Sequence[Path], requirements: Sequence[str]) -> str:
        """Log a checkpoint as a model that MLflow loads and serves with `code`; its URI.

        `packages` are folders of code that it imports, `requirements` the names of installed packages.
        """
        import mlflow
        import pandas as pd

        with _current_store(self.uri), mlflow.start_run(run_id=self.run_id):
            logged = mlflow.pyfunc.log_model(
                name="video_model",
                python_model=str(code),
                artifacts={"checkpoint": str(checkpoint)},
                code_paths=[str(package) for package in packages],
                pip_requirements=[f"{name}=={version(name)}" for name in requirements],
                signature=_signature(),
                input_example=pd.DataFrame({"path": ["video.mp4"]}),
            )
        return str(logged.model_uri)

    def finish(self, status: Ending = "FINISHED", reason: str = "") -> None:
        """Close the run; `reason` says why one failed."""
        if reason:
            self.client.set_tag(self.run_id, REASON, without_secrets(reason)[:5000])
        self.client.set_terminated(self.run_id, status)


@contextlib.contextmanager
def _current_store(uri: str) -> Iterator[None]:
    """MLflow's own idea of the current store, which it keeps in the environment too, is `uri` meanwhile."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # None: as if it had never been set


def _signature() -> Any:
    """Columns of the served model's tables (pipelines/serving/pyfunc_model.py): one row a video."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema

    frames = Array(Array(Array(Array(DataType.long))))
    videos = [ColSpec(DataType.string, "path", required=False), ColSpec(frames, "frames", required=False)]
    columns = {
        "class": DataType.string,
        "probability": DataType.double,
        "top_classes": Array(DataType.string),
        "top_probabilities": Array(DataType.double),
        "num_frames": DataType.long,
        "error": DataType.string,
    }
    return ModelSignature(Schema(videos), Schema([ColSpec(kind, name) for name, kind in columns.items()]))


def is_outage(error: BaseException) -> bool:
    """Did something fail, as the cause of others perhaps, that may well work a minute later: a server that does not
    answer, a locked database, a storage that is gone? A full disk or a missing file is as it is."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return not any(map(_lasts, chain)) and any(map(_passes, chain))


def _lasts(error: BaseException) -> bool:
    of_disk = isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorname", "") in (
        "SQLITE_FULL",
        "SQLITE_READONLY",
    )
    return of_disk or (isinstance(error, OSError) and error.errno in LASTING)


def _passes(error: BaseException) -> bool:
    if isinstance(error, requests.RequestException):
        return isinstance(error, requests.ConnectionError | requests.Timeout | requests.exceptions.RetryError)
    if isinstance(error, MlflowException):
        return error.error_code == "TEMPORARILY_UNAVAILABLE"
    return isinstance(error, ConnectionError | TimeoutError) or (isinstance(error, OSError) and error.errno is not None)


def provenance() -> dict[str, str]:
    """What the numbers depend on besides the configuration."""
    packages = ("torch", "torchvision", "ray", "mlflow", "adafocus")
    return {
        "git_commit": commit(),
        "version.python": platform.python_version(),
        **{f"version.{name}": _version(name) for name in packages},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"  # this project itself, where a cluster was sent its files


def _query(tags: Mapping[str, str]) -> str:
    """MLflow's search text for runs with these tags. Raises UserError for a value that it cannot express."""
    for value in tags.values():
        if "'" in value and '"' in value:
            raise UserError(f"{value!r} cannot be searched for in MLflow: it holds both kinds of quotes")
    quoted = {key: f'"{value}"' if "'" in value else f"'{value}'" for key, value in tags.items()}
    return " and ".join(f"tags.`{key}` = {value}" for key, value in quoted.items())
