"""A store of MLflow: it opens runs to write into them, and reads runs as records.

A data set is an experiment. A sweep is a parent run, each trial a child, each benchmark a run of its own. A run is
identified by its tags, so that work which was killed is continued in its run.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from pipelines.paths import Places, absolute_tracking_uri
from pipelines.tracking import tag_names
from pipelines.tracking.provenance import provenance, user
from pipelines.tracking.reach import check_reach, check_writable, is_server
from pipelines.tracking.records import BenchmarkRecord, RunRecord, SweepRecord, TrialRecord
from pipelines.tracking.run import MODEL_VIEW, Run
from pipelines.version import commit
from preprocessing.addresses import without_secrets
from preprocessing.schema import UserError

Kind = Literal["sweep", "trial", "benchmark", "frontier", "preprocess"]
MODEL_TRAINING = {"mlflow.experimentKind": "custom_model_development"}
"""Lets the dashboard show runs and curves, not traces of language models."""


class Tracker:
    """An MLflow store. The first `Tracker` of a new store creates its tables, under a lock: before workers start."""

    def __init__(self, runs: Path, uri: str | None = None, *, patient: bool = False) -> None:
        """`patient`: behind long work wait for a server that does not answer as long as MLflow does, which is minutes.
        Raises UserError for a store that cannot be used."""
        self.runs = runs.absolute()
        self.uri = absolute_tracking_uri(self.runs, uri)
        self.runs.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # which is for rows of --json
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # not a line per migration of a new store
        if not patient:
            check_reach(self.uri)
        # Two processes that open a new SQLite store at once break it; nobody has to wait for one who asks a server.
        lock = contextlib.nullcontext() if self.is_server else FileLock(self.runs / ".mlflow.lock")
        try:
            with lock:
                self.client = MlflowClient(self.uri)
                self.client.search_experiments(max_results=1)
        except (MlflowException, SQLAlchemyError, ImportError) as error:
            raise UserError(without_secrets(f"the MLflow store {self.uri} cannot be used: {_reason(error)}")) from None

    @classmethod
    def at(cls, places: Places, *, patient: bool = False) -> Tracker:
        """The store of these places."""
        return cls(places.runs, places.tracking_uri, patient=patient)

    @property
    def is_server(self) -> bool:
        """Is the store a server, which has the dashboard already?"""
        return is_server(self.uri)

    def address(self, experiment_id: str, run_id: str) -> str:
        """Address of a run's page in the dashboard."""
        return f"{self.dashboard}/#/experiments/{experiment_id}/runs/{run_id}?{MODEL_VIEW}"

    @property
    def dashboard(self) -> str:
        """Address of the dashboard: the server's, or the one that `adafocus dashboard` serves."""
        return without_secrets(self.uri).rstrip("/") if self.is_server else "http://127.0.0.1:5000"

    def experiment(self, name: str) -> str:
        """Id of an experiment, which is created if need be. A local store keeps its artifacts below `runs` too.

        Raises UserError for one that was deleted in the dashboard (MLflow keeps it, and its name, until it is restored)
        and for a store that cannot be written.
        """
        check_writable(self.uri)
        with FileLock(self.runs / ".mlflow.lock"):
            if experiment := self.client.get_experiment_by_name(name):
                if experiment.lifecycle_stage == LifecycleStage.DELETED:
                    uri, number = without_secrets(self.uri), experiment.experiment_id
                    raise UserError(
                        f"the experiment {name!r} of the MLflow store {uri} was deleted: bring it back by "
                        f"`MLFLOW_TRACKING_URI={uri} mlflow experiments restore --experiment-id {number}`, or choose "
                        "another store"
                    )
                return experiment.experiment_id
            # A server says itself where artifacts go.
            place = None if self.is_server else (self.runs / "artifacts" / name).as_uri()
            return self.client.create_experiment(name, place, tags=MODEL_TRAINING)

    def run(self, dataset: str, kind: Kind, name: str, *, parent: str | None = None, **identity: str) -> Run:
        """The run of this kind and identity in the data set's experiment, opened again if it exists, else created."""
        experiment = self.experiment(dataset)
        tags = _tags(kind, identity)
        existing = self.client.search_runs([experiment], _query(tags), max_results=1)
        if existing:
            run = existing[0]
            self.client.update_run(run.info.run_id, status="RUNNING")
            if tag_names.REASON in run.data.tags:  # why it ended before says nothing of how it ends now
                self.client.delete_tag(run.info.run_id, tag_names.REASON)
        else:
            links = {tag_names.PARENT: parent} if parent else {}
            source = {
                tag_names.COMMIT: commit(),
                tag_names.SOURCE: _verb(kind, identity),
                tag_names.SOURCE_TYPE: "LOCAL",
                tag_names.USER: user(),
            }
            run = self.client.create_run(experiment, tags={**tags, **links, **source}, run_name=name)
        opened = Run(self.client, run, self.uri)
        opened.log_params(provenance())
        return opened

    def open(self, run_id: str) -> Run:
        """A run by its id."""
        return Run(self.client, self.client.get_run(run_id), self.uri)

    def trials(self, **identity: str) -> list[TrialRecord]:
        """Records of trials, newest first, over all data sets: all, or those of a `sweep`, or with a key (`trial`)."""
        return [TrialRecord.of(run, name) for run, name in self._search("trial", identity)]

    def trial(self, run_id: str) -> TrialRecord:
        """Record of a trial by the id of its run."""
        run = self.client.get_run(run_id)
        return TrialRecord.of(run, self.client.get_experiment(run.info.experiment_id).name)

    def sweeps(self, **identity: str) -> list[SweepRecord]:
        """Records of sweeps: all, or those of the name `sweep`, one for each data set."""
        return [SweepRecord.of(run, name) for run, name in self._search("sweep", identity)]

    def benchmarks(self) -> list[BenchmarkRecord]:
        """Records of all benchmarks, newest first."""
        return [BenchmarkRecord.of(run, name) for run, name in self._search("benchmark", {})]

    def frontiers(self) -> list[RunRecord]:
        """Records of all comparisons of methods, newest first."""
        return [RunRecord.of(run, name) for run, name in self._search("frontier", {})]

    def find(self, kind: Kind, **identity: str) -> list[MlflowRun]:
        """All runs of a kind, as MLflow has them, newest first, over all data sets."""
        return [run for run, _ in self._search(kind, identity)]

    def unfinished(self, kind: Kind, **identity: str) -> list[Run]:
        """Runs of a kind that were not closed."""
        return [Run(self.client, run, self.uri) for run in self.find(kind, **identity) if run.info.status == "RUNNING"]

    def _search(self, kind: Kind, identity: Mapping[str, str]) -> list[tuple[MlflowRun, str]]:
        """Runs, each with the name of its experiment."""
        names = {each.experiment_id: each.name for each in self.client.search_experiments()}
        query = _query(_tags(kind, identity))
        runs: list[MlflowRun] = []
        token = "" if names else None
        while token is not None:
            page = self.client.search_runs(list(names), query, max_results=1000, page_token=token or None)
            runs, token = runs + list(page), page.token or None
        return [(run, names[run.info.experiment_id]) for run in runs]

    def last_sign_ms(self, run_id: str) -> int:
        """When a run has last shown that it is alive, in milliseconds since 1970: by its start or a metric. Where the
        load of its machines is logged, that comes every ten seconds, until the store fails to answer once."""
        run = self.client.get_run(run_id)
        names = sorted(run.data.metrics)
        hosts = {name.split("/")[1]: name for name in names if name.startswith("system/")}
        own = [name for name in names if not name.startswith("system/")]
        entries = [entry for name in [*hosts.values(), *own] for entry in self.open(run_id).entries(name)]
        return max([run.info.start_time or 0, *(entry.timestamp for entry in entries)])

    def shards_of(self, run_id: str) -> str | None:
        """Address of the data set that a run has used; None if that was not logged."""
        for used in self.client.get_run(run_id).inputs.dataset_inputs:
            address = json.loads(used.dataset.source).get("uri")
            if address:
                return str(address)
        return None

    def read_json(self, run_id: str, name: str) -> Any:
        """A JSON artifact of a run; None if there is none."""
        if name not in {item.path for item in self.client.list_artifacts(run_id)}:
            return None
        with tempfile.TemporaryDirectory() as folder:
            return json.loads(Path(self.client.download_artifacts(run_id, name, folder)).read_text("utf-8"))


def _reason(error: Exception) -> str:
    """Why a store cannot be used, in a line."""
    if isinstance(error, ModuleNotFoundError):
        return f"the package of its database driver is not installed here ({error}); for PostgreSQL: .[server]"
    text = error.message if isinstance(error, MlflowException) else str(error)
    return next(iter(text.splitlines()), type(error).__name__)


def runs_filter(kind: Kind, **identity: str) -> str:
    """MLflow's filter for the runs of a kind and identity. Raises UserError for a value that it cannot express."""
    return _query(_tags(kind, identity))


def _tags(kind: Kind, identity: Mapping[str, str]) -> dict[str, str]:
    """The tags that identify a run."""
    return {f"{tag_names.PREFIX}{key}": value for key, value in {"kind": kind, **identity}.items()}


def _verb(kind: Kind, identity: Mapping[str, str]) -> str:
    """The command that makes runs of this kind."""
    verbs = {"sweep": "tune", "trial": "tune" if identity.get("sweep") else "train"}
    return f"adafocus {verbs.get(kind, kind)}"


def _query(tags: Mapping[str, str]) -> str:
    """The filter of MLflow's search for runs with these tags. Raises UserError for a value that it cannot express."""
    for value in tags.values():
        if "'" in value and '"' in value:
            raise UserError(f"{value!r} cannot be searched for in MLflow: it holds both kinds of quotes")
    quoted = {key: f'"{value}"' if "'" in value else f"'{value}'" for key, value in tags.items()}
    return " and ".join(f"tags.`{key}` = {value}" for key, value in quoted.items())
