"""Training as a process: killed with -9 and started again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adafocus.checkpoint import load_state, read_meta
from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.training.reports import Options
from helpers.sweeping import settings
from helpers.tiny import STAGES, UNI
from pipelines.cli.main import main
from pipelines.paths import Places
from pipelines.sweeps.stages.storage import list_folders
from pipelines.tracking.client import Tracker
from pipelines.training.train import train


def start(
    shards: str, runs: Path, changes: dict[str, object], *more: str, recipe: str = "demo"
) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "pipelines.cli", "train", "--recipe", recipe, "--shards", shards, "--runs", str(runs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    with runs.with_suffix(".log").open("a") as output:
        return subprocess.Popen(
            [*argv, *settings(changes), *more], env=environment, stdout=subprocess.DEVNULL, stderr=output, text=True
        )


def finished(runs: Path) -> list[str]:
    return sorted(path.parent.name for path in runs.glob("*/meta.json"))


def train_here(shards: str, runs: Path, config: Config, eval_every: int = 1) -> None:
    """The same in this process, with one thread as in the processes that are killed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        places = Places.of(shards, runs, f"sqlite:///{runs}/mlflow.db")
        train(config, "demo", places, Options(device="cpu", eval_every=eval_every), "demo")
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(synthetic_shards: str, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a run that nobody disturbs, evaluated at other times than those that are killed."""
    runs = tmp_path_factory.mktemp("whole")
    train_here(synthetic_shards, runs, tiny_config, eval_every=2)
    history = read_meta(next(runs.glob("ppo-*"))).history
    assert ["ppo/val_top1" in row["metrics"] for row in history] == [False, True]
    return runs


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "stages", [("ppo",), pytest.param(STAGES, marks=pytest.mark.slow)], ids=["once", "in-each-stage"]
)
def test_killed_it_ends_with_the_same_bits(
    stages: Sequence[str],
    whole: Path,
    synthetic_shards: str,
    tmp_path: Path,
    tiny_changes: dict[str, object],
    tiny_config: Config,
) -> None:
    """A state is saved after every step, so that it is killed inside an epoch too."""
    runs, kills, inside = tmp_path / "killed", set(), set()
    for stage in stages:
        process = start(synthetic_shards, runs, tiny_changes, "--save-every", "0")
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if list(runs.glob(f"{stage}-*.partial/state.pt")):  # it is in the middle of this stage
                process.send_signal(signal.SIGKILL)
                kills.add(stage)
                break
            time.sleep(0.005)
        process.wait()
        for partial in runs.glob("*.partial"):
            state = load_state(partial)
            if state and 0 < state["progress"]["step"] < 3:
                inside.add(stage)
    assert len(kills) >= min(len(stages), 3) and inside, f"killed only in {kills}, inside an epoch in {inside}"
    train_here(synthetic_shards, runs, tiny_config)
    assert finished(runs) == finished(whole)
    for name in finished(runs):
        left, right = (load_file(next(path.glob("*.safetensors"))) for path in (runs / name, whole / name))
        assert left.keys() == right.keys() and all(left[key].equal(right[key]) for key in left), name
    assert not list(runs.glob("*.partial"))
    # All went into one MLflow run, each epoch once.
    tracker = Tracker(runs, f"sqlite:///{runs}/mlflow.db")
    (trial,) = tracker.find("trial")
    assert trial.info.status == "FINISHED"
    steps = [entry.step for entry in tracker.client.get_metric_history(trial.info.run_id, "ppo/loss")]
    assert steps == [5, 6]
    assert json.loads((runs / finished(runs)[0] / "meta.json").read_text())["versions"]["torch"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "stage", "more"),
    [("demo-v2", "joint", {"joint.epochs": 2, "joint.batch_size": 8}), ("demo-uni", "unified", UNI)],
    ids=["V2", "Uni"],
)
def test_the_one_stage_killed_ends_with_the_same_bits(
    recipe: str,
    stage: str,
    more: dict[str, object],
    synthetic_shards: str,
    tmp_path: Path,
    tiny_changes: dict[str, object],
) -> None:
    changes, weights, kills = {**tiny_changes, **more}, [], 0
    for name, saving in (("killed", ("--save-every", "0")), ("whole", ())):
        runs = tmp_path / name
        process = start(synthetic_shards, runs, changes, *saving, recipe=recipe)
        while process.poll() is None and name == "killed" and not kills:
            state = next((load_state(partial) for partial in runs.glob(f"{stage}-*.partial")), None)
            if state and 0 < state["progress"]["step"] < 3:  # inside an epoch
                process.send_signal(signal.SIGKILL)
                kills += 1
            time.sleep(0.005)
        process.wait()
        assert start(synthetic_shards, runs, changes, recipe=recipe).wait() == 0
        weights.append(load_file(next(runs.glob(f"{stage}-*/*.safetensors"))))
    assert kills
    left, right = weights
    assert left.keys() == right.keys() and all(left[key].equal(right[key]) for key in left)


def test_another_configuration_of_the_same_name_is_a_run_of_its_own(
    synthetic_shards: str, tmp_path: Path, tiny_config: Config
) -> None:
    first = override(tiny_config, {f"{stage}.epochs": 1 for stage in STAGES})
    second = override(first, {"finetune.head_lr": 0.5})
    places = Places.of(synthetic_shards, tmp_path, f"sqlite:///{tmp_path}/mlflow.db")
    folders = [train(config, "demo", places, Options(device="cpu"), "demo") for config in (first, second, first)]
    assert folders[0] == folders[2] != folders[1]
    runs = Tracker.at(places).find("trial")
    assert {run.info.run_name for run in runs} == {"demo"}
    assert sorted(run.data.params["finetune.head_lr"] for run in runs) == sorted(
        str(config.finetune.head_lr) for config in (first, second)
    )
    assert {run.data.tags["adafocus.checkpoint"] for run in runs} == {folder.name for folder in folders}
    # No stage has lost its user.
    assert all(each.users == ("demo",) for each in list_folders(places))


def test_training_that_diverges_says_so_in_a_line(
    synthetic_shards: str,
    tmp_path: Path,
    tiny_changes: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    runs = tmp_path / "runs"
    changes = {**tiny_changes, "pretrain.head_lr": 1e30, "pretrain.backbone_lr": 1e30}
    argv = ["adafocus", "train", "--recipe", "demo", "--shards", synthetic_shards, "--runs", str(runs)]
    monkeypatch.setattr(sys, "argv", [*argv, *settings(changes)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    said = capfd.readouterr().err
    assert re.search(r"^adafocus: the loss is nan on the batch of clips train/\d+, .*\n.*learning rate", said, re.M)
    assert "Traceback" not in said, said
    assert not finished(runs)
    (trial,) = Tracker(runs, f"sqlite:///{runs}/mlflow.db").find("trial")
    assert trial.info.status == "FAILED"
