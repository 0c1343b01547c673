"""Which trial is meant: a name that several have is refused, one that has not finished is told what became of it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pipelines.paths import Places
from pipelines.tracking.client import Tracker
from pipelines.tracking.models.checkpoints import find_checkpoint, find_checkpoints
from preprocessing.schema import UserError


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    """Sweep `a` with trials of each ending, a trial of the same name in sweep `b` on other data, and single ones."""
    runs = tmp_path_factory.mktemp("runs")
    places = Places.of("shards", runs, f"sqlite:///{runs}/mlflow.db")
    tracker = Tracker.at(places)

    def trial(dataset: str, sweep: str, name: str, metric: str = "", score: float = 0.0) -> str:
        run = tracker.run(dataset, "trial", name, sweep=sweep, trial=f"{dataset} {sweep} {name}")
        if metric:
            run.log_metrics({f"finetune/val_{metric}": score})
            run.set_result(Path(f"finetune-{sweep}-{score:.0f}"), "", metric)
            run.finish()
        return run.run_id

    trial("ssv1", "a", "gamma=0.5", "top1", 41)
    trial("ssv1", "a", "gamma=0.7", "top1", 43)
    trial("ssv1", "a", "gamma=0.9", "top1", 42)
    trial("fcvid", "b", "gamma=0.5", "map", 80)
    trial("ssv1", "twice", "seed=0", "top1", 10)
    trial("fcvid", "twice", "seed=0", "map", 20)
    tracker.run("ssv1", "trial", "bad", sweep="a", trial="bad").finish("FAILED", "OutOfMemoryError: 3 GiB")
    pruned = tracker.run("ssv1", "trial", "weak", sweep="c", trial="weak")
    pruned.log_metrics({"ppo/reward": 0.1})
    pruned.set_pruned("by asha after epoch 2", 2)
    pruned.finish()
    trial("ssv1", "c", "going")
    return places


def test_a_name_that_several_runs_have_is_refused_with_their_ids(places: Places) -> None:
    with pytest.raises(UserError, match=r"2 runs are named 'gamma=0\.5'") as error:
        find_checkpoint(places, run="gamma=0.5", sweep=None, folder=None)
    trials = [run for run in Tracker.at(places).find("trial") if run.info.run_name == "gamma=0.5"]
    for run in trials:
        sweep = run.data.tags["adafocus.sweep"]
        assert f"{run.info.run_id} (sweep {sweep}, {'ssv1' if sweep == 'a' else 'fcvid'})" in str(error.value)
        for wanted in (run.info.run_id, f"{sweep} gamma=0.5"):
            found = find_checkpoint(places, run=wanted, sweep=None, folder=None)
            assert (found.run_id, found.name) == (run.info.run_id, f"{sweep} gamma=0.5")
            assert found.folder == places.runs / run.data.tags["adafocus.checkpoint"]


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("nobody", "there is no run 'nobody' in sqlite"),
        ("bad", "run 'bad' has no result to use: it failed: OutOfMemoryError: 3 GiB"),
        ("weak", "run 'weak' has no result to use: it was pruned in stage ppo: by asha after epoch 2"),
        ("c going", "run 'c going' has no result to use: it is still running, or was killed"),
    ],
)
def test_what_has_not_finished_is_told_its_state(run: str, message: str, places: Places) -> None:
    with pytest.raises(UserError, match=message):
        find_checkpoint(places, run=run, sweep=None, folder=None)


def test_the_best_of_a_sweep_come_in_order(places: Places, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    one, two = find_checkpoints(places, run=None, sweep="a", folder=None, best=2)
    assert (one.name, two.name) == ("a gamma=0.7", "a gamma=0.9") and not caplog.messages
    three = find_checkpoints(places, run=None, sweep="a", folder=None, best=5)
    assert [each.folder.name for each in three] == ["finetune-a-43", "finetune-a-42", "finetune-a-41"]
    assert caplog.messages == ["only 3 trials of sweep a have finished"]


def test_a_sweep_without_a_best_trial_says_why(places: Places) -> None:
    with pytest.raises(UserError, match="no trial of sweep 'c' has finished: 1 running, 1 pruned"):
        find_checkpoints(places, run=None, sweep="c", folder=None)
    with pytest.raises(UserError, match="there is no trial of sweep 'd'"):
        find_checkpoints(places, run=None, sweep="d", folder=None)
    with pytest.raises(UserError, match="sweeps 'twice' of several data sets: give --run and one of"):
        find_checkpoints(places, run=None, sweep="twice", folder=None)


def test_a_folder_is_taken_as_it_is(places: Places) -> None:
    found = find_checkpoint(places, run=None, sweep=None, folder=Path("runs/finetune-x"))
    assert (found.folder, found.run_id, found.name) == (Path("runs/finetune-x").absolute(), "", "finetune-x")
