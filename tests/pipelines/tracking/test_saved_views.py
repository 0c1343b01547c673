"""Saved views: MLflow's own page lists them, and shows the runs and charts that they name."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
import requests

from helpers.browser import browser_page
from pipelines.tracking.client import Tracker
from pipelines.tracking.saved_views import MOST_SWEEPS, benchmarks_view, save_view, sweep_view, view_addresses
from pipelines.tracking.tag_names import VIEW


@pytest.fixture(scope="module")
def experiment(tracker: Tracker) -> str:
    """A data set with two benchmarks and two trials of a sweep."""
    for number in (1, 2):
        bench = tracker.run("d", "benchmark", f"benchmark {number}", trial=f"{number}")
        bench.log_metrics({"score": 70.0 + number, "gflops": 0.1 * number, "latency_ms": 2.0, "bench/centre/top1": 9.0})
        bench.finish()
        trial = tracker.run("d", "trial", f"trial {number}", sweep="it's", trial=f"{number}")
        trial.log_params({"ppo.gamma": number / 2})
        for epoch in (1, 2):
            trial.log_metrics({"score": 50.0 + epoch * number}, step=epoch)
        trial.finish()
    return tracker.experiment("d")


def state_of(tracker: Tracker, experiment: str, key: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the store holds of a view: its record, and the state of MLflow's page in it."""
    text = tracker.client.get_experiment(experiment).tags[VIEW + key]
    assert len(text) < 5000, "more than MLflow keeps"
    record = json.loads(text)
    state = json.loads(zlib.decompress(base64.b64decode(record["state"].removeprefix("deflate;"))))
    return record, state


def test_a_view_finds_its_runs_and_is_replaced(tracker: Tracker, experiment: str) -> None:
    link = save_view(tracker, experiment, benchmarks_view())
    before, state = state_of(tracker, experiment, "adafocus-benchmarks")
    found = tracker.client.search_runs([experiment], state["searchFilter"])
    assert {run.info.run_name for run in found} == {"benchmark 1", "benchmark 2"}
    assert {chart["type"] for chart in state["compareRunCharts"]} == {"SCATTER", "BAR"}
    assert save_view(tracker, experiment, benchmarks_view()) == link
    after, _ = state_of(tracker, experiment, "adafocus-benchmarks")
    assert after["createdAt"] == before["createdAt"] <= after["updatedAt"]
    (address,) = view_addresses(tracker, "d").values()
    assert link == f"[Benchmarks compared]({address.removeprefix('http://127.0.0.1:5000/')})"
    assert view_addresses(tracker, "unknown") == {}


def test_only_the_newest_sweeps_have_views(tracker: Tracker) -> None:
    experiment = tracker.experiment("many sweeps")
    for number in range(MOST_SWEEPS + 2):
        assert save_view(tracker, experiment, sweep_view(f"s{number}", ["ppo.lr"]))
        time.sleep(0.002)  # they are told apart by milliseconds
    assert {name.split()[-1] for name in view_addresses(tracker, "many sweeps")} == {
        f"s{number}" for number in range(2, MOST_SWEEPS + 2)
    }


@pytest.mark.parametrize("text", ["not JSON", "[]", '{"title": "of a later MLflow"}'])
def test_a_view_that_another_version_has_written_stops_nothing(tracker: Tracker, text: str) -> None:
    experiment = tracker.experiment("other views")
    tracker.client.set_experiment_tag(experiment, f"{VIEW}adafocus-sweep-old", text)
    assert list(view_addresses(tracker, "other views")) == ["adafocus-sweep-old"]
    for name in ("old", "new"):
        assert save_view(tracker, experiment, sweep_view(name, []))
    assert {"Sweep old", "Sweep new"} <= set(view_addresses(tracker, "other views"))
    tracker.client.delete_experiment_tag(experiment, f"{VIEW}adafocus-sweep-new")


def test_a_name_that_mlflow_does_not_take_is_a_warning(
    tracker: Tracker, experiment: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A tag's name may hold no quotes."""
    assert save_view(tracker, experiment, sweep_view("it's", ["ppo.gamma"])) == ""
    assert "it's" in caplog.text


@pytest.mark.slow
def test_mlflow_shows_them(tracker: Tracker, experiment: str, tmp_path: Path) -> None:
    """The list is filtered, the menu names the view, and the charts are those that the view names, first of all."""
    save_view(tracker, experiment, benchmarks_view())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "pipelines.cli", "dashboard", "--runs", str(tracker.runs), "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
    try:
        address = view_addresses(tracker, "d")["Benchmarks compared"].replace("5000", str(port))
        _wait_for(f"http://127.0.0.1:{port}/health")
        with browser_page(1600, 1200) as page:
            page.goto(address)
            page.get_by_text("gflops vs. score").first.wait_for(timeout=60_000)
            text = page.inner_text("body")
            assert "benchmark 1" in text and "benchmark 2" in text and "trial 1" not in text
            charts = r"Benchmarks compared\s+\(4\).*gflops vs.*score.*latency_ms.*bench/centre"
            assert re.search(charts, text, re.DOTALL)
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


def _wait_for(address: str) -> None:
    for _ in range(300):
        try:
            requests.get(address, timeout=1)
            return
        except requests.RequestException:
            time.sleep(0.2)
    raise TimeoutError(address)
