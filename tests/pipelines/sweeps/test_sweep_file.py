"""What a sweep is: its record on disk, what makes it the same one, and which combinations make no sense."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adafocus.config.overrides import override
from adafocus.training.reports import Options
from pipelines.paths import Places
from pipelines.ray_runtime.resources import Resources
from pipelines.recipes.cpu import demo
from pipelines.recipes.untrimmed import activitynet_128
from pipelines.sweeps.search.space import Space, show_point
from pipelines.sweeps.sweep import Sweep
from pipelines.sweeps.sweep_file import continue_sweep, default_name, load_sweep, save_sweep
from preprocessing.schema import UserError

GRID = Space({"ppo.gamma": [0.5, 0.7]})
DRAWN = Space({}, {"ppo.lr": ("loguniform", [1e-5, 1e-3]), "model.patch_size": ("choice", [32, 44])})


def make(runs: Path, space: Space = GRID, **changes: Any) -> Sweep:
    return replace(Sweep("s", demo(), "demo", space, Places.of("/shards", runs)), **changes)


@pytest.mark.parametrize("space", [GRID, DRAWN])
def test_a_record_is_read_back_as_it_was(space: Space, tmp_path: Path) -> None:
    sweep = make(
        tmp_path,
        space,
        config=override(activitynet_128(), {"data.crop_scales": (1.0, 0.9), "seed": 3}),
        scheduler="asha",
        num_samples=7,
        resources=Resources(workers_per_trial=2, gpus_per_worker=0.5, ray_address="auto"),
        options=Options(device="cpu", num_workers=2),
        version="d1",
        store="sqlite:///mlflow.db",
    )
    save_sweep(sweep)
    assert load_sweep(tmp_path, "s") == sweep


def test_a_record_whose_values_are_texts_is_the_same_sweep(tmp_path: Path) -> None:
    """As records were before values had the types of their settings."""
    space = Space({"ppo.gamma": [0.5, 0.7], "model.reuse_glance": [True, False]}, DRAWN.sample)
    sweep = continue_sweep(make(tmp_path, space), "d1")
    file = save_sweep(sweep)
    record = json.loads(file.read_text())
    record["space"]["grid"] = {"ppo.gamma": ["0.5", "0.7"], "model.reuse_glance": ["true", "false"]}
    record["space"]["sample"]["model.patch_size"] = ["choice", ["32", "44"]]
    file.write_text(json.dumps(record))
    assert (
        load_sweep(tmp_path, "s") == sweep == continue_sweep(make(tmp_path, space, started_ms=sweep.started_ms), "d1")
    )


SERVER = "postgresql://user:secret@host:5432/db?password=secret"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (SERVER, "postgresql://host:5432/db"),
        ("http://user:secret@127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("http://mlflow.lab/path#secret", "http://mlflow.lab/path"),
        ("sqlite:////elsewhere/mlflow.db", "sqlite:////elsewhere/mlflow.db"),
    ],
)
def test_the_record_names_the_store_without_its_password(address: str, shown: str, tmp_path: Path) -> None:
    sweep = continue_sweep(make(tmp_path, places=Places.of("/shards", tmp_path, address)), "d1")
    file = save_sweep(sweep)
    assert load_sweep(tmp_path, "s").store == shown
    assert "secret" not in file.read_text()


def test_the_same_command_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    first = continue_sweep(make(tmp_path), "d1")
    assert first == make(tmp_path, started_ms=first.started_ms, version="d1", store="sqlite:///mlflow.db")
    save_sweep(first)
    later = make(tmp_path, started_ms=first.started_ms + 1000, num_samples=1, resources=Resources(max_concurrent=3))
    assert continue_sweep(later, "d1") == replace(first, resources=Resources(max_concurrent=3))
    with pytest.raises(UserError, match=r"there is another sweep 's' \(its space differ\)"):
        continue_sweep(make(tmp_path, DRAWN), "d1")
    with pytest.raises(UserError, match=r"\(its config, scheduler differ\)"):
        continue_sweep(make(tmp_path, config=activitynet_128(), scheduler="asha"), "d1")


def test_shards_that_were_built_anew_are_refused(tmp_path: Path) -> None:
    save_sweep(continue_sweep(make(tmp_path), "a" * 40))
    with pytest.raises(UserError, match=r"at /shards have changed since .* \(digest a{12} then, digest b{12} now"):
        continue_sweep(load_sweep(tmp_path, "s"), "b" * 40)


def test_boxes_that_changed_are_refused_where_they_were_named(tmp_path: Path) -> None:
    """Earlier versions wrote the digest alone."""
    save_sweep(continue_sweep(make(tmp_path), "a"))
    save_sweep(continue_sweep(load_sweep(tmp_path, "s"), "a+1"))
    with pytest.raises(UserError, match=r"\(digest a, boxes 1 then, digest a, boxes 2 now\)"):
        continue_sweep(load_sweep(tmp_path, "s"), "a+2")


def test_another_store_is_refused_and_runs_that_moved_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when MLFLOW_TRACKING_URI was forgotten: the new runs would be written where nobody looks for them."""
    old, new = tmp_path / "old", tmp_path / "new"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SERVER)
    begun = continue_sweep(make(old), "d1")
    file = save_sweep(begun)
    assert continue_sweep(load_sweep(old, "s"), "d1") == begun
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(UserError, match=r"runs in postgresql://host:5432/db, and MLflow is at sqlite:///mlflow.db now"):
        continue_sweep(load_sweep(old, "s"), "d1")
    file.unlink()
    save_sweep(continue_sweep(make(old), "d1"))
    old.rename(new)
    assert continue_sweep(load_sweep(new, "s"), "d1").store == "sqlite:///mlflow.db"


def test_a_point_is_shown_by_whole_keys_where_two_end_alike() -> None:
    assert show_point({"ppo.gamma": 0.7, "finetune.head_lr": 3e-4}) == "gamma=0.7 head_lr=0.0003"
    both = {"warmup.head_lr": 1e-3, "finetune.head_lr": 2e-3, "ppo.gamma": 0.7}
    assert show_point(both) == "warmup.head_lr=0.001 finetune.head_lr=0.002 gamma=0.7"
    assert show_point({"data.crop_scales": (1.0, 0.9), "model.reuse_glance": True, "model.finetune_dropout": None}) == (
        "crop_scales=1.0,0.9 reuse_glance=true finetune_dropout=none"
    )
    assert show_point({}) == "single"


def test_a_name_is_made_of_what_is_tried(tmp_path: Path) -> None:
    names = {default_name(make(tmp_path, space)) for space in (GRID, DRAWN, GRID)}
    assert len(names) == 2 and all(name.startswith("demo-") for name in names)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "/abs"])
def test_a_name_that_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no name for a sweep"):
        load_sweep(tmp_path, name)


def test_a_sweep_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    save_sweep(make(tmp_path))
    with pytest.raises(UserError, match=r"there is no sweep 'x' in .*; known: s"):
        load_sweep(tmp_path, "x")
    (tmp_path / "sweeps" / "x.json").write_text('{"name": 3}')
    with pytest.raises(UserError, match="is no sweep's record"):
        load_sweep(tmp_path, "x")


def test_stages_that_are_shared_and_the_one_in_which_trials_are_compared(tmp_path: Path) -> None:
    def stages(*keys: str) -> tuple[tuple[str, ...], str]:
        sweep = make(tmp_path, Space({key: [0] for key in keys}))
        return sweep.shared, sweep.judged

    assert stages("ppo.gamma") == (("pretrain", "warmup"), "ppo")
    assert stages("finetune.head_lr", "ppo.lr") == (("pretrain", "warmup"), "ppo")
    assert stages("finetune.head_lr") == (("pretrain", "warmup", "ppo"), "finetune")
    assert stages("seed") == ((), "pretrain")
    assert stages() == (("pretrain", "warmup", "ppo", "finetune"), "finetune")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": GRID, "search": "optuna"}, "use --sample ppo.gamma=choice:0.5:0.7"),
        ({"space": Space(), "search": "optuna"}, "has nothing to draw"),
        ({"space": GRID, "num_samples": 2}, "without --sample would repeat the same trials"),
        ({"space": Space(), "scheduler": "asha"}, "compares trials, and there is only one"),
        ({"num_samples": 0}, "have to be 1 or more"),
        ({"resources": Resources(workers_per_trial=0)}, "have to be 1 or more"),
        ({"space": Space({"ppo.lr": [1]}, {"ppo.lr": ("uniform", [0, 1])})}, "in the grid and drawn too"),
    ],
)
def test_combinations_that_make_no_sense(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as raised:
        make(tmp_path, **changes).check()
    assert "\n" not in str(raised.value)
