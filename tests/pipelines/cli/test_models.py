"""Released checkpoints through the command line: in, out again, and the same tensors; and training behind one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adafocus.checkpoint import load_model, read_meta
from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.interop.reference_checkpoints import read_checkpoint
from adafocus.interop.reference_export import export_checkpoint
from adafocus.methods import build_model
from pipelines.cli.main import main
from pipelines.recipes import find_recipe

SMALL: dict[str, Any] = {
    **{f"data.{name}": 2 for name in ("num_frames", "num_focus_frames")},
    "data.resize": 40,
    "data.crop": 40,
    "model.glance_size": 40,
    "model.patch_size": 32,
    "model.policy_hidden": 16,
    "model.classifier_hidden": 16,
    **{f"{stage}.precision": "float32" for stage in ("warmup", "ppo", "finetune")},
    **{f"{stage}.epochs": 1 for stage in ("ppo", "finetune")},
    **{f"{stage}.batch_size": 12 for stage in ("ppo", "finetune")},
}
"""What makes the published networks train on small frames within seconds."""
SET = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]


def cli(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["adafocus", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def config_of(recipe: str, changes: dict[str, Any] | None = None) -> Config:
    none = {"model.glancer_weights": "none", "model.focuser_weights": "none"}
    return override(find_recipe(recipe), {**none, **(changes or {})})


def alike(first: Any, second: Any) -> bool:
    """Equal, tensors and tables too."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(alike(value, second[key]) for key, value in first.items())
    return first.equal(second) if isinstance(first, torch.Tensor) else bool(first == second)


@pytest.mark.parametrize(
    ("recipe", "stage", "words"),
    [
        ("activitynet-128", "finetune", "glancer, focuser, policy, classifier of stage finetune, 7 classes"),
        pytest.param(
            "activitynet-128", "pretrain", "glancer, focuser of stage pretrain, 7 classes", marks=pytest.mark.slow
        ),
        pytest.param(
            "ssv1-144", "warmup", "glancer, focuser, classifier of stage warmup, 7 classes", marks=pytest.mark.slow
        ),
    ],
)
def test_import_and_export_are_inverse(
    recipe: str,
    stage: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(0)
    info = {"epoch": 7, "acc": np.float64(70.5), "best_acc": 75.0}
    export_checkpoint(build_model(config_of(recipe), 7), tmp_path / "a.pth.tar", stage=stage, info=info)
    folder = tmp_path / "ours"
    assert cli(monkeypatch, "import-checkpoint", tmp_path / "a.pth.tar", "--recipe", recipe, "--out", folder) == 0
    assert words in capsys.readouterr().out
    _, meta = load_model(folder)
    assert meta.stage == stage and len(meta.class_names) == 7 and meta.imported[0]["name"] == "a.pth.tar"
    assert cli(monkeypatch, "export-checkpoint", folder, "--out", tmp_path / "b.pth.tar") == 0
    first, second = (read_checkpoint(tmp_path / name) for name in ("a.pth.tar", "b.pth.tar"))
    assert (second["epoch"], second["acc"], second["best_acc"]) == (7, 70.5, 75)
    assert alike(first, second)


@pytest.mark.slow
def test_two_networks_become_one_model_and_two_files_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    infos = {"glancer": {"epoch": 50, "best_prec1": 36.5}, "focuser": {"epoch": 49, "best_prec1": 46.0}}
    model = build_model(config_of("ssv1-144"), 7)
    files = export_checkpoint(model, tmp_path / "a.pth.tar", stage="pretrain", info_of_parts=infos)
    folder, recipe = tmp_path / "ours", ("--recipe", "ssv1-144")
    assert cli(monkeypatch, "import-checkpoint", *files, *recipe, "--out", folder) == 0
    assert cli(monkeypatch, "export-checkpoint", folder, "--out", tmp_path / "b.pth.tar") == 0
    for part, file in zip(infos, files, strict=True):
        assert alike(read_checkpoint(file), read_checkpoint(tmp_path / f"b_{part}.pth.tar"))
    one = tmp_path / "one"
    capsys.readouterr()
    assert cli(monkeypatch, "import-checkpoint", files[1], *recipe, "--out", one) == 0
    assert "no file held the glancer: random weights" in capsys.readouterr().out
    assert cli(monkeypatch, "export-checkpoint", one, "--out", tmp_path / "c.pth.tar") == 0
    assert alike(read_checkpoint(files[1]), read_checkpoint(tmp_path / "c.pth.tar"))


@pytest.mark.slow
def test_training_goes_on_behind_an_imported_stage(
    synthetic_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = build_model(config_of("activitynet-128", SMALL), 10)
    (file,) = export_checkpoint(model, tmp_path / "128checkpoint.pth.tar", stage="warmup", info={"epoch": 50})
    runs = tmp_path / "runs"
    where = ["--recipe", "activitynet-128", "--shards", synthetic_shards, "--runs", runs, *SET]
    assert cli(monkeypatch, "import-checkpoint", file, *where) == 0
    (warmup,) = runs.glob("warmup-*")
    meta = read_meta(warmup)
    assert (meta.imported[0]["name"], meta.imported[0]["epoch"], meta.history) == ("128checkpoint.pth.tar", 50, [])
    assert len(meta.class_names) == 10 and meta.class_names[0] != "class 0" and warmup.name == f"warmup-{meta.key}"
    assert cli(monkeypatch, "train", *where, "--device", "cpu") == 0
    assert not list(runs.glob("pretrain-*")) and list(runs.glob("finetune-*"))
    trained, made = load_model(next(runs.glob("ppo-*")))
    assert not made.imported and len(made.history) == 1
    found, state = trained.state_dict(), model.state_dict()
    for part in ("glancer.body", "focuser.body", "classifier"):
        assert all(found[name].equal(value) for name, value in state.items() if name.startswith(part)), part
    assert read_meta(warmup) == meta
    capsys.readouterr()
    assert cli(monkeypatch, "import-checkpoint", file, *where) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.slow
def test_what_training_could_not_start_from_is_refused(
    synthetic_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = build_model(config_of("activitynet-128", SMALL), 10)
    (file,) = export_checkpoint(model, tmp_path / "a.pth.tar")
    (glancer,) = export_checkpoint(model, tmp_path / "g.pth.tar", stage="pretrain", parts=["glancer"])
    (other,) = export_checkpoint(build_model(config_of("activitynet-128", SMALL), 3), tmp_path / "b.pth.tar")
    where = ["--recipe", "activitynet-128", "--shards", synthetic_shards, "--runs", tmp_path / "runs", *SET]

    def refuse(words: str, *arguments: object) -> None:
        assert cli(monkeypatch, "import-checkpoint", *arguments) == 2
        assert words in capsys.readouterr().err
        assert not list(tmp_path.glob("runs/*-*"))

    refuse("focuser came with no file", glancer, *where)
    refuse("behind which no stage follows", file, *where)
    refuse("has 3 classes, but", other, *where)
    refuse("exactly one of --out and --runs", file, *where, "--out", tmp_path / "o")
    refuse("--runs needs --shards", file, "--recipe", "demo", "--runs", tmp_path / "runs")
    refuse("none of the stages", file, *where, "--stage", "warm")
    assert cli(monkeypatch, "import-checkpoint", file, *where, "--stage", "ppo") == 0
    assert json.loads(next(tmp_path.glob("runs/ppo-*/meta.json")).read_text())["stage"] == "ppo"


def test_a_file_of_another_family_is_refused_with_its_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(
        {"glancer": {}, "focuser": {"net.fc.bias": torch.zeros(3)}, "fc": {"surplus": torch.zeros(1)}}, tmp_path / "x"
    )
    assert cli(monkeypatch, "import-checkpoint", tmp_path / "x", "--recipe", "ssv1-144", "--out", tmp_path / "o") == 2
    error = capsys.readouterr().err
    assert "missing" in error and "Traceback" not in error and not (tmp_path / "o").exists()
