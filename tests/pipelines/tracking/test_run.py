"""Runs that are written: parameters that change, and the load of the machine."""

from __future__ import annotations

import json
import re
import time

import pytest

from pipelines.tracking import metric_names
from pipelines.tracking.client import Tracker


def test_a_run_that_goes_on_forgets_why_it_ended_and_says_which_params_changed(tracker: Tracker) -> None:
    first = tracker.run("d", "trial", "again", trial="again")
    first.log_params({"device": "cuda", "ppo.lr": 0.1, "old": 1})
    first.finish("FAILED", "no memory")
    (failed,) = tracker.find("trial", trial="again")
    assert failed.data.tags["adafocus.reason"] == "no memory"
    again = tracker.run("d", "trial", "again", trial="again")
    again.log_params({"device": "cpu", "ppo.lr": 0.1})
    again.log_params({"old": 2, "new": 3})
    again.finish()
    (found,) = tracker.find("trial", trial="again")
    assert found.info.status == "FINISHED" and "adafocus.reason" not in found.data.tags
    assert json.loads(found.data.tags["adafocus.continued_with"]) == {"device": "cpu", "old": "2"}
    assert found.data.params["device"] == "cuda" and found.data.params["new"] == "3"


def test_system_metrics_are_named_by_host_and_go_on_where_they_stopped(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    run = tracker.run("d", "trial", "system", trial="system")
    steps: list[int] = []
    for _ in range(2):
        with run.system_metrics():
            time.sleep(1)
        logged = [name for name in run.metric_names() if name.startswith("system/")]
        assert any(re.fullmatch(r"system/[\w.-]+/cpu_utilization_percentage", name) for name in logged)
        assert all(metric_names.explain(name) for name in logged)
        steps.append(max(run.curve(logged[0])))
    assert 0 < steps[0] < steps[1]


def test_a_paragraph_is_added_to_a_description_once(tracker: Tracker) -> None:
    run = tracker.run("d", "trial", "t", trial="t")
    for text in ("what it is", "measured by a", "what it is", "measured by b"):
        run.add_to_description(text)
    assert tracker.client.get_run(run.run_id).data.tags["mlflow.note.content"] == (
        "what it is\n\nmeasured by a\n\nmeasured by b"
    )
