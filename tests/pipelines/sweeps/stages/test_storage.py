"""What is on disk, who uses it, and what goes: never a stage that a trial needs or that somebody trains."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from adafocus.checkpoint import read_meta
from adafocus.config.overrides import from_flat, override
from adafocus.config.schema import Config
from adafocus.methods.identity import stage_folder
from adafocus.training.reports import Options
from adafocus.training.stage_lock import StageLock
from adafocus.training.stage_runner import run_stage
from helpers.tiny import STAGES
from pipelines.cli.main import main
from pipelines.paths import Places
from pipelines.sweeps.search.space import Space
from pipelines.sweeps.stages.storage import find_folder, list_folders, remove_folders
from pipelines.sweeps.sweep import Sweep
from pipelines.sweeps.sweep_file import save_sweep
from pipelines.tracking.client import Tracker
from pipelines.training.trial_logger import log_setup
from preprocessing.schema import UserError
from preprocessing.shards.index import read_metadata


@pytest.fixture(scope="module")
def places(tiny_config: Config, synthetic_shards: str, tmp_path_factory: pytest.TempPathFactory) -> Places:
    """Two warm-ups, one of which a trial in MLflow uses, and an unfinished ppo that the same trial would go on with."""
    places = Places.of(synthetic_shards, tmp_path_factory.mktemp("runs"))
    used = override(tiny_config, {f"{stage}.epochs": 1 for stage in STAGES})
    unused = override(used, {"warmup.head_lr": 0.5})
    for config in (used, unused):
        for stage in ("pretrain", "warmup"):
            run_stage(
                stage,
                config,
                shards=places.shards,
                runs=places.runs,
                options=Options(device="cpu"),
                report=lambda _: None,
            )
    run = Tracker.at(places).run("synthetic", "trial", "gamma=0.5", sweep="mine", trial="t")
    log_setup(run, used, places, "demo")
    partial = stage_folder("ppo", used, places.runs, _digest(places)).with_suffix(".partial")
    partial.mkdir()
    (partial / "state.pt").write_bytes(b"x" * 1000)
    (places.runs / "artifacts-of-others").mkdir()
    return places


def _digest(places: Places) -> str:

    return read_metadata(places.shards).digest


def test_every_stage_is_listed_with_who_uses_it(places: Places) -> None:
    pretrain, *warmups, partial = list_folders(places)
    assert pretrain.users == ("mine gamma=0.5",) and pretrain.finished and not pretrain.removable
    assert sorted((warmup.users, warmup.removable) for warmup in warmups) == [((), True), (("mine gamma=0.5",), False)]
    assert not partial.finished and partial.removable and partial.num_bytes == 1000
    assert partial.status == "unfinished, nobody trains it" and partial.users == ("mine gamma=0.5",)
    assert pretrain.num_bytes > sum(path.stat().st_size for path in pretrain.folder.glob("*.safetensors"))
    assert find_folder(places, "pretrain") == pretrain
    with pytest.raises(
        UserError, match=r"'warmup' has to be the beginning of one stage in .*; fitting: warmup-.*, warmup-"
    ):
        find_folder(places, "warmup")


def test_what_is_being_trained_stays(places: Places) -> None:
    partial = list_folders(places)[-1]
    lock = StageLock(places.runs, partial.folder.stem)
    assert lock.acquire()
    try:
        (held,) = [each for each in list_folders(places) if each.folder == partial.folder]
        assert held.status.startswith("being trained by process ") and not held.removable
        assert remove_folders(places, [held]) == []
    finally:
        lock.release()


def test_a_store_that_knows_nothing_of_these_stages_is_not_believed(places: Places, tmp_path: Path) -> None:
    """With MLFLOW_TRACKING_URI astray every stage looks unused."""
    astray = Places(places.shards, places.runs, f"sqlite:///{tmp_path}/other.db")
    assert all(each.removable for each in list_folders(astray))
    with pytest.raises(UserError, match="knows none of the stages in"):
        remove_folders(astray, list_folders(astray))
    assert len(list_folders(places)) == 4


def test_what_comes_into_use_while_the_question_stands_stays(places: Places) -> None:
    (free,) = [each for each in list_folders(places) if each.finished and each.removable]
    run = Tracker.at(places).run("synthetic", "trial", "late", sweep="mine", trial="late")
    run.set_stages([free.folder])
    try:
        assert remove_folders(places, [free]) == [] and free.folder.exists()
    finally:
        Tracker.at(places).client.delete_run(run.run_id)


def test_what_comes_into_use_while_its_lock_is_awaited_stays(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    (free,) = [each for each in list_folders(places) if each.finished and each.removable]
    acquire, made = StageLock.acquire, []

    def slowly(self: StageLock, timeout_s: float = 0) -> bool:
        if timeout_s > 1:  # somebody had it for a while, finished the stage and let go
            made.append(Tracker.at(places).run("synthetic", "trial", "late", sweep="mine", trial="later"))
            made[0].set_stages([free.folder])
        return acquire(self, timeout_s)

    monkeypatch.setattr(StageLock, "acquire", slowly)
    try:
        assert remove_folders(places, [free]) == [] and free.folder.exists() and made
    finally:
        Tracker.at(places).client.delete_run(made[0].run_id)


@pytest.mark.parametrize(
    ("space", "used"),
    [
        (Space(grid={"warmup.head_lr": [0.5, 0.7]}), True),
        (Space(grid={"warmup.head_lr": ["0.5"]}), True),
        (Space(grid={"warmup.head_lr": [0.6]}), False),
        (Space(sample={"warmup.head_lr": ("loguniform", [0.1, 1])}), True),
        (Space(grid={"ppo.gamma": [0.5]}), False),
    ],
)
def test_a_sweep_uses_what_its_record_fits_whatever_mlflow_knows(places: Places, space: Space, used: bool) -> None:
    (free,) = [each for each in list_folders(places) if each.finished and each.removable]
    config = override(from_flat(read_meta(free.folder).config), {"warmup.head_lr": 0.1})
    sweep = Sweep("noted", config, "demo", space, places)
    file = save_sweep(sweep)
    try:
        (found,) = [each for each in list_folders(places) if each.folder == free.folder]
        assert found.users == (("sweep noted",) if used else ()) and found.removable != used
    finally:
        file.unlink()


def test_files_of_ray_tune_go_when_their_sweep_does_not_run(places: Places) -> None:
    state = places.runs / "tune" / "ended" / "groups" / "123" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text("x" * 100)
    found = find_folder(places, "tune/ended")
    assert found.removable and found.num_bytes == 100 and "sweep that ended" in found.status
    lock = StageLock(places.runs, "sweep-ended")
    assert lock.acquire()
    try:
        held = find_folder(places, "tune/ended")
        assert not held.removable and "in use by process" in held.status and remove_folders(places, [found]) == []
    finally:
        lock.release()
    assert remove_folders(places, [found]) == [found] and not found.folder.exists()


def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["adafocus", "runs", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0), capsys.readouterr().out


def test_the_command_lists_shows_and_prunes(
    places: Places, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = ("--runs", str(places.runs))
    status, text = cli(monkeypatch, capsys, "list", *runs)
    assert status == 0 and "4 folders, " in text and "2 of them can go" in text and "nobody uses it" in text
    listed = json.loads(cli(monkeypatch, capsys, "list", *runs, "--json")[1])
    assert [each["can_go"] for each in listed].count(True) == 2
    status, text = cli(monkeypatch, capsys, "show", "pretrain", *runs)
    assert status == 0 and "users: mine gamma=0.5" in text and "  pretrain.epochs: 1" in text
    status, text = cli(monkeypatch, capsys, "prune", "--dry-run", *runs)
    assert status == 0 and "2 folders would go" in text and "mine gamma=0.5 would begin it anew" in text
    monkeypatch.setattr("typer.confirm", lambda question: False)
    assert cli(monkeypatch, capsys, "prune", *runs)[0] == 2
    assert len(list_folders(places)) == 4
    status, text = cli(monkeypatch, capsys, "prune", "--yes", *runs)
    assert status == 0 and "2 folders removed" in text
    assert [each.removable for each in list_folders(places)] == [False, False]
    assert (places.runs / "artifacts-of-others").is_dir()
    assert "nothing can go" in cli(monkeypatch, capsys, "prune", *runs)[1]
