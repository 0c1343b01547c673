"""Released checkpoints through the command line: in, out again, and the same tensors."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from adafocus.checkpoint import load_model
from adafocus.config import override
from adafocus.convert import export_checkpoint
from adafocus.models.adafocus import build_model
from pipelines.cli import main
from pipelines.recipes import find_recipe


def cli(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["adafocus", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def test_import_and_export_are_inverse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = override(
        find_recipe("activitynet-128"), {"model.glancer_weights": "none", "model.focuser_weights": "none"}
    )
    torch.manual_seed(0)
    export_checkpoint(build_model(config, 7), tmp_path / "a.pth.tar", stage="finetune")
    folder = tmp_path / "ours"
    assert (
        cli(monkeypatch, "import-checkpoint", tmp_path / "a.pth.tar", "--recipe", "activitynet-128", "--out", folder)
        == 0
    )
    assert "7 classes" in capsys.readouterr().out
    _, meta = load_model(folder)
    assert meta.stage == "finetune" and len(meta.class_names) == 7
    assert cli(monkeypatch, "export-checkpoint", folder, "--out", tmp_path / "b.pth.tar") == 0
    first, second = (torch.load(tmp_path / name, weights_only=True) for name in ("a.pth.tar", "b.pth.tar"))
    for part in ("glancer", "focuser", "policy", "fc"):
        assert first[part].keys() == second[part].keys()
        assert all(value.equal(second[part][name]) for name, value in first[part].items())


def test_a_file_of_another_family_is_refused_with_its_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(
        {"glancer": {}, "focuser": {"net.fc.bias": torch.zeros(3)}, "fc": {"surplus": torch.zeros(1)}}, tmp_path / "x"
    )
    assert cli(monkeypatch, "import-checkpoint", tmp_path / "x", "--recipe", "ssv1-144", "--out", tmp_path / "o") == 2
    error = capsys.readouterr().err
    assert "missing" in error and "Traceback" not in error and not (tmp_path / "o").exists()
