"""Saved views of MLflow's run list: which runs it shows, in which columns and charts. Its menu lists them by name.

MLflow keeps them as tags of the experiment, in the form that its page writes when a reader saves a view. That form is
documented nowhere; this is the one of MLflow 3.17.
"""

from __future__ import annotations

import base64
import json
import logging
import time
import urllib.parse
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipelines.tracking.client import Tracker, runs_filter
from pipelines.tracking.run import MODEL_VIEW
from pipelines.tracking.score import SCORE
from pipelines.tracking.tag_names import VIEW

log = logging.getLogger(__name__)

OURS = "adafocus-"
OF_SWEEP = f"{OURS}sweep-"
MOST_SWEEPS = 10

Chart = Mapping[str, Any]
"""A chart in the words of MLflow's page, without its place."""


@dataclass(frozen=True, slots=True)
class SavedView:
    """A view: a filter of runs, the metric by which they are sorted, columns of the list, charts beside it."""

    key: str
    """In its address; the same for good, so that a view is replaced and not added again."""
    name: str
    filter: str
    columns: Sequence[str]
    charts: Sequence[Chart]

    def save(self, client: MlflowClient, experiment_id: str, now_ms: int) -> None:
        """Add the view to an experiment, or replace it."""
        created = _written(client.get_experiment(experiment_id).tags.get(VIEW + self.key)).get("createdAt", now_ms)
        text = base64.b64encode(zlib.compress(json.dumps(self._state()).encode())).decode()
        record = {"name": self.name, "createdAt": created, "updatedAt": now_ms, "state": f"deflate;{text}"}
        client.set_experiment_tag(experiment_id, VIEW + self.key, json.dumps(record))

    def _state(self) -> dict[str, Any]:
        """What MLflow's page keeps of itself."""
        section = {"uuid": self.key, "name": self.name, "display": True, "isReordered": True, "deleted": False}
        common = {"metricSectionId": self.key, "isGenerated": False, "deleted": False, "runsCountToCompare": 100}
        charts = [{**common, "uuid": f"{self.key}-{number}", **chart} for number, chart in enumerate(self.charts)]
        return {
            "searchFilter": self.filter,
            "orderByKey": f"metrics.`{SCORE}`",
            "orderByAsc": False,
            "selectedColumns": list(self.columns),
            "compareRunSections": [section],
            "compareRunCharts": charts,
            "isAccordionReordered": True,  # else sections are sorted by name
            "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
            "runsHiddenMode": "SHOW_ALL",
        }


def benchmarks_view() -> SavedView:
    """All benchmarks of a data set: accuracy over compute, and both side by side."""
    return SavedView(
        f"{OURS}benchmarks",
        "Benchmarks compared",
        runs_filter("benchmark"),
        [*map(_metric, (SCORE, "gflops", "latency_ms", "videos_per_s")), "attributes.`Source`"],
        [_scatter("gflops", SCORE), _bars(SCORE), _bars("gflops"), _bars("latency_ms")],
    )


def sweep_view(sweep: str, keys: Sequence[str]) -> SavedView:
    """The trials of a sweep: score by epoch, settings and score as parallel coordinates. `keys`: what it varies."""
    shown = [f"params.`{key}`" for key in keys]
    return SavedView(
        OF_SWEEP + sweep,
        f"Sweep {sweep}",
        runs_filter("trial", sweep=sweep),
        [_metric(SCORE), *shown, "attributes.`Duration`"],
        [_curves(SCORE), _parallel(keys, [SCORE]), _bars(SCORE)],
    )


def save_view(tracker: Tracker, experiment_id: str, view: SavedView) -> str:
    """Save a view of an experiment, and return a Markdown link to it; empty, with a warning, if the store refuses."""
    try:
        view.save(tracker.client, experiment_id, int(time.time() * 1000))
        _remove_old(tracker.client, experiment_id)
    except MlflowException as error:
        log.warning("MLflow does not save the view %r: %s", view.name, error.message.splitlines()[0])
        return ""
    return f"[{view.name}]({_place(experiment_id, view.key)})"


def view_addresses(tracker: Tracker, dataset: str) -> dict[str, str]:
    """The views of a data set that were saved here: name -> address in the dashboard."""
    experiment = tracker.client.get_experiment_by_name(dataset)
    tags = sorted(experiment.tags.items()) if experiment else []
    ours = [(tag.removeprefix(VIEW), text) for tag, text in tags if tag.startswith(VIEW + OURS)]
    return {
        _written(text).get("name", key): f"{tracker.dashboard}/{_place(experiment.experiment_id, key)}"
        for key, text in ours
    }


def _written(text: str | None) -> dict[str, Any]:
    """What a view's tag says; nothing if there is none, or another version of MLflow writes it otherwise."""
    try:
        record = json.loads(text or "{}")
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _place(experiment_id: str, key: str) -> str:
    """Where a view is in the dashboard."""
    quoted = urllib.parse.quote(key, safe="")
    return f"#/experiments/{experiment_id}/runs?viewStateShareKey={quoted}&compareRunsMode=CHART&{MODEL_VIEW}"


def _remove_old(client: MlflowClient, experiment_id: str) -> None:
    """Remove the views of all sweeps but the newest: MLflow's page lets its readers have 40 in all."""
    tags = client.get_experiment(experiment_id).tags
    ours = {tag: _written(text).get("updatedAt", 0) for tag, text in tags.items() if tag.startswith(VIEW + OF_SWEEP)}
    for tag in sorted(ours, key=lambda each: ours[each], reverse=True)[MOST_SWEEPS:]:
        client.delete_experiment_tag(experiment_id, tag)


def _metric(name: str) -> str:
    return f"metrics.`{name}`"


def _bars(metric: str) -> Chart:
    return {"type": "BAR", "metricKey": metric}


def _curves(metric: str) -> Chart:
    return {"type": "LINE", "metricKey": metric, "selectedMetricKeys": [metric]}


def _scatter(x: str, y: str) -> Chart:
    axes = {axis: {"key": key, "type": "METRIC"} for axis, key in {"xaxis": x, "yaxis": y}.items()}
    return {"type": "SCATTER", **axes}


def _parallel(params: Sequence[str], metrics: Sequence[str]) -> Chart:
    return {"type": "PARALLEL", "selectedParams": list(params), "selectedMetrics": list(metrics), "showAllRuns": False}
