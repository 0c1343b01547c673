"""How a trial's end is told, with a real MLflow store and Tune's trials played by their attributes."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.paths import Places
from pipelines.recipes.cpu import demo
from pipelines.sweeps.outcome_callback import OutcomeCallback
from pipelines.sweeps.search.space import Space
from pipelines.sweeps.sweep import Sweep
from pipelines.tracking.client import Tracker

POINT = {"ppo.gamma": 0.5}


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    return Tracker(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def sweep(tracker: Tracker, request: pytest.FixtureRequest) -> Sweep:
    space = Space({"ppo.gamma": [0.5, 0.7]})
    return Sweep(request.node.name, demo(), "demo", space, Places.of("/shards", tracker.runs), version="d")


def ended(sweep: Sweep, tracker: Tracker, deadline: float | None, error: str = "", **last: Any) -> tuple[Any, Any]:
    """(what the driver notes, the run in MLflow) of a trial that was under way."""
    tracker.run("d", "trial", "gamma=0.5", sweep=sweep.name, trial=sweep.trial_key(POINT, "d"))
    callback = OutcomeCallback(sweep, tracker, None, deadline)
    file = tracker.runs / "error.txt"
    file.write_text(f"Failure # 4 (occurred at 2026-01-01)\n{error}\n")
    trial = SimpleNamespace(
        trial_id="t", config={"point": POINT}, last_result=last, num_failures=4, error_file=str(file)
    )
    (callback.on_trial_error if error else callback.on_trial_complete)(0, [], trial)
    (result,), (run,) = callback.outcomes, tracker.find("trial", sweep=sweep.name)
    return result, run


def test_a_trial_is_stopped_only_by_a_time_budget_that_has_ended(sweep: Sweep, tracker: Tracker) -> None:
    result, run = ended(sweep, tracker, time.monotonic() - 1, clock=3, score=20.0, evaluated=True)
    assert (result.status, result.stopped, result.score) == ("stopped", "the time budget ended", 20.0)
    assert (run.info.status, run.data.tags["adafocus.reason"]) == ("KILLED", "the time budget ended")


@pytest.mark.parametrize("budget_s", [None, 1000])
def test_a_trial_that_tune_ends_for_no_reason_has_failed(
    budget_s: float | None, sweep: Sweep, tracker: Tracker
) -> None:
    result, run = ended(sweep, tracker, budget_s and time.monotonic() + budget_s, clock=3, score=20.0, evaluated=True)
    assert result.status == "failed" and "Ray Tune ended it after epoch 3" in result.error
    assert run.info.status == "FAILED" and run.data.tags["adafocus.reason"] == result.error


def test_an_outage_is_told_as_what_it_is(sweep: Sweep, tracker: Tracker) -> None:
    said = "ray::ImplicitFunc.train()\nTraceback ...\npipelines.trial.OutageError: MlflowException: 503 at host"
    result, run = ended(sweep, tracker, None, said)
    assert result.error == "something that it needs was out of reach: MlflowException: 503 at host"
    assert run.data.tags["adafocus.reason"] == result.error
    result, _ = ended(sweep, tracker, None, "The actor died.\nworker exit by SIGKILL")
    assert result.error == "its worker died 4 times: worker exit by SIGKILL"
