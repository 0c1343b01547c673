"""The tracking store: many processes at once, runs that go on, the registry's alias, the names of metrics."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.tracking import metric_names, registry
from pipelines.tracking.client import Tracker
from pipelines.tracking.registry import MeasuredModel
from preprocessing.schema import UserError

ROOT = Path(__file__).parents[3]
WRITER = """
import os
import sys
from pathlib import Path
from pipelines.tracking.client import Tracker
number, runs = 0, Path(sys.argv[1])
children = []
for number in range(8):
    child = os.fork()  # eight processes for the price of one import
    if child == 0:
        break
    children.append(child)
else:
    sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
run = Tracker(runs).run("d", "trial", f"trial {number}", sweep="s", trial=str(number))
run.params({f"p.{key}": f"{number}-{key}" for key in range(150)})
for step in range(1, 31):
    run.metrics({f"warmup/{name}": number + step / 100 for name in ("loss", "accuracy", "seconds")}, step, step)
run.client.log_dict(run.run_id, {"number": number}, "table.json")
run.finish()
"""


def test_eight_processes_that_open_a_new_store_at_once_lose_nothing(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, timeout=240).returncode == 0
    tracker = Tracker(tmp_path)
    found = tracker.find("trial", sweep="s")
    assert sorted(run.info.run_name for run in found) == [f"trial {number}" for number in range(8)]
    for run in found:
        number = int(run.data.tags["adafocus.trial"])
        assert run.info.status == "FINISHED"
        for key in range(150):
            assert run.data.params[f"p.{key}"] == f"{number}-{key}"
        opened = tracker.open(run.info.run_id)
        for name in ("loss", "accuracy", "seconds"):
            assert opened.curve(f"warmup/{name}") == {step: number + step / 100 for step in range(1, 31)}
        assert tracker.read_json(run.info.run_id, "table.json") == {"number": number}


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    return Tracker(tmp_path_factory.mktemp("store"))


def test_a_run_is_found_again_and_says_with_what_it_goes_on(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tracker.run("d", "trial", "it's one", sweep="it's", trial="t")
    first.finish("KILLED")
    monkeypatch.setattr("pipelines.tracking.provenance.commit", lambda: "another")
    again = tracker.run("d", "trial", "it's one", sweep="it's", trial="t")
    assert again.run_id == first.run_id
    (found,) = tracker.find("trial", sweep="it's")
    assert found.info.status == "RUNNING" and found.data.params["git_commit"] == first.param("git_commit") != "another"
    assert "another" in found.data.tags["adafocus.continued_with"]
    with pytest.raises(UserError, match="both kinds of quotes"):
        tracker.find("trial", sweep="'\"")


def test_a_run_that_goes_on_forgets_why_it_ended_and_says_which_params_changed(tracker: Tracker) -> None:
    first = tracker.run("d", "trial", "again", trial="again")
    first.params({"device": "cuda", "ppo.lr": 0.1, "old": 1})
    first.finish("FAILED", "no memory")
    (failed,) = tracker.find("trial", trial="again")
    assert failed.data.tags["adafocus.reason"] == "no memory"
    again = tracker.run("d", "trial", "again", trial="again")
    again.params({"device": "cpu", "ppo.lr": 0.1})
    again.params({"old": 2, "new": 3})
    again.finish()
    (found,) = tracker.find("trial", trial="again")
    assert found.info.status == "FINISHED" and "adafocus.reason" not in found.data.tags
    assert json.loads(found.data.tags["adafocus.continued_with"]) == {"device": "cpu", "old": "2"}
    assert found.data.params["device"] == "cuda" and found.data.params["new"] == "3"


def test_more_runs_than_a_page_are_found(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        tracker.run("pages", "preprocess", str(number), number=str(number))
    whole = tracker.client.search_runs

    def pages_of_two(experiments: list[str], query: str, max_results: int, page_token: str | None) -> object:
        return whole(experiments, query, max_results=2, page_token=page_token)

    monkeypatch.setattr(tracker.client, "search_runs", pages_of_two)
    assert sorted(str(run.info.run_name) for run in tracker.find("preprocess")) == ["0", "1", "2", "3", "4"]


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


def test_best_is_the_best_on_the_same_clips(tracker: Tracker, tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text("{}")

    def measure(trial: str, digest: str, score: float) -> str:
        run = tracker.run("d", "trial", trial, trial=trial)
        run.artifact(tmp_path, "model")
        return registry.register(tracker, MeasuredModel("demo", run.run_id, "model", digest, "top1", score, "about"))

    def aliases() -> dict[str, str]:
        found = tracker.client.get_registered_model("adafocus-demo").aliases
        return {alias: str(version) for alias, version in found.items()}

    assert measure("a", "1" * 16, 70.0) == "models:/adafocus-demo/1" and aliases() == {"best": "1"}
    assert measure("b", "1" * 16, 60.0) == "models:/adafocus-demo/2" and aliases() == {"best": "1"}
    measure("c", "1" * 16, 70.0)
    assert aliases() == {"best": "1"}  # of equals the older one
    measure("d", "2" * 16, 99.0)  # other clips: easier ones, for all we know
    assert aliases() == {"best": "1", "best-22222222": "4"}
    assert measure("b", "1" * 16, 80.0) == "models:/adafocus-demo/2"  # measured again: no new version
    assert aliases() == {"best": "2", "best-22222222": "4"}
    measure("b", "2" * 16, 100.0)  # one version may be measured on several data sets
    assert aliases() == {"best": "2", "best-22222222": "2"}
    measure("b", "1" * 16, 50.0)
    assert aliases() == {"best": "1", "best-22222222": "2"}
    place = tracker.client.get_model_version_download_uri("adafocus-demo", "1")
    assert Path(tracker.client.download_artifacts(tracker.find("trial", trial="a")[0].info.run_id, "model")).exists()
    assert place.endswith("/artifacts/model")


def test_the_readme_has_the_table_of_metrics() -> None:
    assert metric_names.table() in (ROOT / "docs/metrics.md").read_text()


@pytest.mark.parametrize("name", ["ppo/loss", "finetune/val_map", "ppo/reward_t07", "bench/warmup_random/map"])
def test_known_names(name: str) -> None:
    assert metric_names.explain(name)


@pytest.mark.parametrize("name", ["ppo/losses", "val_map", "bench/policy/", "online/policy/hit", "pretrain/val_x_top1"])
def test_unknown_names(name: str) -> None:
    assert metric_names.explain(name) is None
