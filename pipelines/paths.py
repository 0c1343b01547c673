"""Where a command reads and writes: the packed data set, the results and the MLflow store.

All of them are absolute, for a process on another machine has another working folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from preprocessing.addresses import absolute, without_secrets

SQLITE = "sqlite:///"
INITIAL_WEIGHTS = ("imagenet", "none")
"""Values of a setting `*_weights` that are no file."""


@dataclass(frozen=True, slots=True)
class Places:
    """Folders and addresses of one command: never part of an identity."""

    shards: str
    """Folder or URL of the packed data set; empty for a command that needs none."""
    runs: Path
    """Folder of the results."""
    tracking_uri: str
    """Address of the MLflow store."""

    @classmethod
    def of(cls, shards: str, runs: Path, tracking_uri: str | None = None) -> Places:
        """Places whose paths may be relative to this process's working folder."""
        return cls(absolute(shards) if shards else "", runs.absolute(), absolute_tracking_uri(runs, tracking_uri))

    @property
    def store(self) -> str:
        """Address of the MLflow store, for readers: without passwords."""
        return without_secrets(self.tracking_uri)


def absolute_tracking_uri(runs: Path, uri: str | None = None) -> str:
    """`uri`, else MLFLOW_TRACKING_URI, else a SQLite file below `runs`; a local one with an absolute path."""
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{runs.absolute() / 'mlflow.db'}"
    if uri.startswith(SQLITE) and not uri.startswith(f"{SQLITE}file:"):
        return f"{SQLITE}{Path(uri.removeprefix(SQLITE)).absolute()}"
    return uri if ":" in uri or uri.startswith("databricks") else absolute(uri)


def absolute_setting(key: str, value: str) -> str:
    """The text of a setting; the name of a weights file as an absolute path, for workers read it too."""
    return absolute(value) if key.endswith("_weights") and value not in INITIAL_WEIGHTS else value
