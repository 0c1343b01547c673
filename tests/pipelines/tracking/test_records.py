"""Runs as records: what readers get of trials, sweeps and benchmarks, those of earlier versions included."""

from __future__ import annotations

from pathlib import Path

from adafocus.checkpoint import Meta
from pipelines.tracking.client import Tracker
from pipelines.tracking.records import TrialRecord
from pipelines.tracking.score import last_score, score_of_stages


def start(tracker: Tracker, name: str) -> str:
    """A trial of sweep s that was begun, with a score of two stages; the id of its run."""
    run = tracker.run("ssv1", "trial", name, sweep="s", trial=f"key of {name}")
    run.set_point({"ppo.gamma": 0.5})
    run.set_stages([Path("runs/warmup-1"), Path("runs/ppo-2")])
    run.log_params({"recipe": "demo"})
    run.log_metrics({"warmup/val_top1": 30.0}, 1)
    run.log_metrics({"ppo/val_top1": 40.0}, 2)
    return run.run_id


def record(tracker: Tracker, name: str) -> TrialRecord:
    (found,) = tracker.trials(sweep="s", trial=f"key of {name}")
    return found


def test_a_trial_says_how_it_ended(tracker: Tracker) -> None:
    running = start(tracker, "running")
    assert record(tracker, "running") == tracker.trial(running)
    assert (record(tracker, "running").outcome, record(tracker, "running").score) == ("running", None)

    done = tracker.open(start(tracker, "done"))
    done.set_result(Path("runs/finetune-3"), "d1", "top1")
    done.finish()
    found = record(tracker, "done")
    assert (found.name, found.full_name, found.dataset) == ("done", "s done", "ssv1")
    assert (found.sweep, found.key, found.parent_id, found.recipe) == ("s", "key of done", "", "demo")
    assert (found.point, found.stages) == ({"ppo.gamma": 0.5}, ("warmup-1", "ppo-2"))
    assert (found.checkpoint, found.digest, found.metric) == ("finetune-3", "d1", "top1")
    assert (found.outcome, found.reason, found.pruned_epoch) == ("finished", "", None)
    assert (found.score, found.score_in("warmup", "top1"), found.reached) == (40.0, 30.0, "ppo")
    assert found.score_in("finetune", "top1") is None

    tracker.open(start(tracker, "weak")).try_to_finish("FINISHED", "pruned in ppo", 2)
    weak = record(tracker, "weak")
    assert (weak.outcome, weak.reason, weak.pruned_epoch) == ("pruned", "pruned in ppo", 2)
    assert (weak.score, weak.score_in("ppo", "top1")) == (None, 40.0)

    for status, outcome in (("FAILED", "failed"), ("KILLED", "stopped")):
        tracker.open(start(tracker, outcome)).finish(status, "no  memory " + "x" * 200)
        lost = record(tracker, outcome)
        assert lost.outcome == outcome and lost.reason.endswith("xxx")
        assert lost.short_reason == "no memory ..."


def test_sweeps_and_benchmarks(tracker: Tracker) -> None:
    sweep = tracker.run("ssv1", "sweep", "s", sweep="s")
    sweep.log_params({"recipe": "demo", "space.ppo.gamma": "0.5, 0.7"})
    sweep.set_stages([Path("runs/pretrain-0")])
    sweep.log_metrics({"reuse/hours_saved": 0.5})
    tracker.run("ssv1", "trial", "child", parent=sweep.run_id, sweep="s", trial="child")
    (found,) = tracker.sweeps(sweep="s")
    assert (found.sweep, found.recipe, found.stages, found.status) == ("s", "demo", ("pretrain-0",), "RUNNING")
    assert (found.space, found.reuse) == ({"ppo.gamma": "0.5, 0.7"}, {"hours_saved": 0.5})
    assert [trial.name for trial in tracker.trials(sweep="s") if trial.parent_id == found.run_id] == ["child"]
    tracker.run("ssv1", "benchmark", "benchmark s child", trial="r1", checkpoint="c")
    (measured,) = tracker.benchmarks()
    assert (measured.measured, measured.trial, measured.dataset) == ("s child", "r1", "ssv1")


def test_a_run_without_later_tags_is_read_too(tracker: Tracker) -> None:
    tracker.run("old", "trial", "bare", trial="bare").finish()
    (bare,) = tracker.trials(trial="bare")
    assert (bare.sweep, bare.point, bare.stages, bare.checkpoint, bare.metric) == ("", None, (), "", "")
    assert (bare.outcome, bare.score, bare.reached) == ("finished", None, "")


def meta(stage: str, *rows: dict[str, float]) -> Meta:
    return Meta({}, stage, "k", "d", {"metric": "map"}, history=[{"metrics": row} for row in rows])


def test_the_score_is_of_the_last_stage_that_was_evaluated() -> None:
    pretrain = meta("pretrain", {"pretrain/val_focuser_map": 10.0, "pretrain/val_glancer_map": 99.0})
    warmup = meta("warmup", {"warmup/val_map": 20.0}, {"warmup/val_map": 25.0}, {"warmup/loss": 1.0})
    imported = meta("ppo")
    assert score_of_stages([pretrain]) == 10.0
    assert score_of_stages([pretrain, warmup, imported]) == 25.0
    assert score_of_stages([imported]) is None and score_of_stages([]) is None
    assert last_score({"warmup/val_map": 25.0, "finetune/val_map": 7.0}, "map") == 7.0
    assert last_score({"finetune/val_map": 7.0}, "top1") is None
