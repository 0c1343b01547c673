"""What is on disk, who uses it, and what goes: never a stage that a trial needs or that somebody trains."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from adafocus.config import STAGES, Config, override
from adafocus.stages.claim import Claim
from adafocus.stages.loop import run_stage
from adafocus.stages.trainer import Options, stage_folder
from pipelines.cli import main
from pipelines.record import describe
from pipelines.stored import find_stored, list_stored, prune
from pipelines.train import Places
from preprocessing.schema import UserError


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
    run = places.tracker().run("synthetic", "trial", "gamma=0.5", sweep="mine", trial="t")
    describe(run, used, places, "demo")
    partial = stage_folder("ppo", used, places.runs, _digest(places)).with_suffix(".partial")
    partial.mkdir()
    (partial / "state.pt").write_bytes(b"x" * 1000)
    (places.runs / "artifacts-of-others").mkdir()
    return places


def _digest(places: Places) -> str:
    from adafocus.loader import ClipLoader

    return ClipLoader.digest_of(places.shards)


def test_every_stage_is_listed_with_who_uses_it(places: Places) -> None:
    pretrain, *warmups, partial = list_stored(places)
    assert pretrain.users == ("mine gamma=0.5",) and pretrain.finished and not pretrain.can_go
    assert sorted((warmup.users, warmup.can_go) for warmup in warmups) == [((), True), (("mine gamma=0.5",), False)]
    assert not partial.finished and partial.can_go and partial.num_bytes == 1000
    assert partial.status == "unfinished, nobody trains it" and partial.users == ("mine gamma=0.5",)
    assert pretrain.num_bytes > sum(path.stat().st_size for path in pretrain.folder.glob("*.safetensors"))
    assert find_stored(places, "pretrain") == pretrain
    with pytest.raises(
        UserError, match=r"'warmup' has to be the beginning of one stage in .*; fitting: warmup-.*, warmup-"
    ):
        find_stored(places, "warmup")


def test_what_is_being_trained_stays(places: Places) -> None:
    partial = list_stored(places)[-1]
    claim = Claim(places.runs, partial.folder.stem)
    assert claim.acquire()
    try:
        (held,) = [each for each in list_stored(places) if each.folder == partial.folder]
        assert held.status.startswith("being trained by process ") and not held.can_go
        assert prune(places, [held]) == []
    finally:
        claim.release()


def test_a_store_that_knows_nothing_of_these_stages_is_not_believed(places: Places, tmp_path: Path) -> None:
    """With MLFLOW_TRACKING_URI astray every stage looks unused."""
    astray = Places(places.shards, places.runs, f"sqlite:///{tmp_path}/other.db")
    assert all(each.can_go for each in list_stored(astray))
    with pytest.raises(UserError, match="knows none of the stages in"):
        prune(astray, list_stored(astray))
    assert len(list_stored(places)) == 4


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
    assert status == 0 and "4 stages, " in text and "2 of them can go" in text and "nobody uses it" in text
    listed = json.loads(cli(monkeypatch, capsys, "list", *runs, "--json")[1])
    assert [each["can_go"] for each in listed].count(True) == 2
    status, text = cli(monkeypatch, capsys, "show", "pretrain", *runs)
    assert status == 0 and "users: mine gamma=0.5" in text and "  pretrain.epochs: 1" in text
    status, text = cli(monkeypatch, capsys, "prune", "--dry-run", *runs)
    assert status == 0 and "2 stages would go" in text and "mine gamma=0.5 would begin it anew" in text
    monkeypatch.setattr("typer.confirm", lambda question: False)
    assert cli(monkeypatch, capsys, "prune", *runs)[0] == 2
    assert len(list_stored(places)) == 4
    status, text = cli(monkeypatch, capsys, "prune", "--yes", *runs)
    assert status == 0 and "2 stages removed" in text
    assert [each.can_go for each in list_stored(places)] == [False, False]
    assert (places.runs / "artifacts-of-others").is_dir()
    assert "nothing can go" in cli(monkeypatch, capsys, "prune", *runs)[1]
