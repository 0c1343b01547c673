"""A sweep's driver where it needs no trial: what is left to try, and what it says when all goes wrong."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

import pytest
from mlflow import MlflowClient

from adafocus.checkpoint import META
from adafocus.training.reports import Options
from pipelines.paths import Places
from pipelines.ray_runtime.resources import Resources
from pipelines.recipes.cpu import demo
from pipelines.sweeps.driver import SweepDriver
from pipelines.sweeps.outcomes import TrialOutcome
from pipelines.sweeps.plan import finished_trials, make_plan, unreported_trials
from pipelines.sweeps.search.space import Space
from pipelines.sweeps.search.space_text import parse_space
from pipelines.sweeps.sweep import Sweep
from pipelines.sweeps.tuner import reuses_workers
from pipelines.tracking.client import Tracker
from pipelines.tracking.run import Run
from preprocessing.schema import DatasetInfo, ExtractionSpec, UserError
from preprocessing.shards.index import DatasetMetadata

INFO = DatasetInfo("folder", ("a", "b"))
DATASET = DatasetMetadata(INFO, ExtractionSpec(), digest="d", shards=(), versions={})
DRAWN = parse_space(demo(), [], ["ppo.lr=loguniform:1e-4:1e-2"])


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    return Tracker(tmp_path_factory.mktemp("runs"))


def make(tracker: Tracker, name: str, space: Space = DRAWN, **changes: Any) -> Sweep:
    return Sweep(name, demo(), "demo", space, Places.of("/shards", tracker.runs), version="d", **changes)


class Failing(SweepDriver):
    """Fails as soon as its run is there."""

    def _open_run(self) -> Run:
        super()._open_run()
        raise UserError("this is why")


def test_a_sweep_that_fails_at_once_leaves_no_run_open(tracker: Tracker) -> None:
    with pytest.raises(UserError, match="this is why"):
        Failing(make(tracker, "open"), tracker, DATASET).run()
    (parent,) = tracker.find("sweep", sweep="open")
    assert parent.info.status == "FAILED" and "this is why" in parent.data.tags["adafocus.reason"]


class Unreachable(SweepDriver):
    """Fails, and by then there is no MLflow either."""

    def _open_run(self) -> Run:
        self.tracker.client = MlflowClient("http://127.0.0.1:1")
        raise UserError("this is why")


def test_what_went_wrong_is_said_though_mlflow_cannot_be_told(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with caplog.at_level(logging.ERROR), pytest.raises(UserError, match="this is why"):
        Unreachable(make(tracker, "gone"), Tracker(tracker.runs), DATASET).run()
    assert "MLflow could not be told that sweep gone ended" in caplog.text


def stopped(sweep: Sweep, tracker: Tracker, past: dict[str, TrialOutcome]) -> list[TrialOutcome]:
    plan = make_plan(sweep, tracker, INFO.metric, past)
    return unreported_trials(sweep, plan, [], deadline=time.monotonic() - 1)


def test_trials_that_the_time_budget_left_are_all_named(tracker: Tracker) -> None:
    """Two of five are done, one was begun by an earlier start, so two were not drawn."""
    sweep = make(tracker, "late", num_samples=5, search="optuna")
    points = [{"ppo.lr": rate} for rate in (1e-3, 2e-3, 3e-3)]
    keys = [sweep.trial_key(point, "d") for point in points]
    begun = tracker.run("d", "trial", "lr=0.003", sweep="late", trial=keys[2])
    begun.set_point({"ppo.lr": 0.003})
    past = {key: TrialOutcome("x", point, 1.0) for key, point in zip(keys[:2], points, strict=False)}
    left = stopped(sweep, tracker, past)
    assert [each.name for each in left] == ["lr=0.003", "trial 4, not drawn yet", "trial 5, not drawn yet"]
    assert {(each.status, each.begun) for each in left} == {("stopped", False)}


def test_trials_of_earlier_versions_are_found_again_by_their_points(tracker: Tracker) -> None:
    """Their keys, and the names of their folders, were made of other fields."""
    sweep = make(tracker, "earlier", Space({"ppo.gamma": [0.5, 0.7]}))
    folder = tracker.runs / "finetune-0123456789ab"
    folder.mkdir()
    (folder / META).write_text("{}")
    run = tracker.run("d", "trial", "gamma=0.7", sweep="earlier", trial="0123456789ab")
    run.set_point({"ppo.gamma": "0.7"})
    run.set_result(folder, "d", INFO.metric)
    run.finish()
    past = finished_trials(sweep, tracker, INFO.metric)
    assert [(each.name, each.checkpoint) for each in past.values()] == [("gamma=0.7", folder)]
    assert make_plan(sweep, tracker, INFO.metric, past).points == [{"ppo.gamma": 0.5}]


def test_points_that_were_logged_as_texts_are_found_again(tracker: Tracker) -> None:
    """As they were logged before values had the types of their settings."""
    drawn = parse_space(demo(), [], ["ppo.gamma=choice:0.5:0.7", "data.crop_scales=choice:1:1,0.8"])
    sweep = make(tracker, "texts", drawn, num_samples=3, search="optuna")
    point = {"ppo.gamma": 0.7, "data.crop_scales": (1.0, 0.8)}
    key = sweep.trial_key(point, "d")
    run = tracker.run("d", "trial", "gamma=0.7 crop_scales=1,0.8", sweep="texts", trial=key)
    run.set_point({"ppo.gamma": "0.7", "data.crop_scales": "1,0.8"})
    assert make_plan(sweep, tracker, INFO.metric, {}).points == [point]
    run.set_pruned("early", 3)
    run.finish()
    past = finished_trials(sweep, tracker, INFO.metric)
    assert [(each.point, each.status) for each in past.values()] == [(point, "pruned")]
    plan = make_plan(sweep, tracker, INFO.metric, past)
    assert plan.searcher and plan.searcher.suggest("t0") != point and plan.count == 2


def test_trials_of_a_grid_that_the_time_budget_left_are_named(tracker: Tracker) -> None:
    sweep = make(tracker, "grid", Space({"ppo.gamma": [0.5, 0.7, 0.9]}))
    past = {sweep.trial_key({"ppo.gamma": 0.7}, "d"): TrialOutcome("x", {"ppo.gamma": 0.7}, 1.0)}
    left = stopped(sweep, tracker, past)
    assert sorted(each.name for each in left) == ["gamma=0.5", "gamma=0.9"]


def test_processes_are_used_again_where_nothing_speaks_against_it(tracker: Tracker) -> None:
    sweep = make(tracker, "r")
    assert reuses_workers(sweep)
    for changes in (
        {"scheduler": "asha"},
        {"resources": Resources(workers_per_trial=2)},
        {"resources": Resources(gpus_per_worker=0.5)},  # an error of CUDA stays with a process
        {"options": Options(device="cuda:1")},
    ):
        assert not reuses_workers(replace(sweep, **changes)), changes
