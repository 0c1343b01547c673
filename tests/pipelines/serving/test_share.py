"""A shared model is the model: the same weights, the same predictions, by every way it is read."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import constants
from safetensors import safe_open

from adafocus import checkpoint
from adafocus.training.reports import Options
from helpers.hub_server import Hub, hub_server
from pipelines.benchmarks.options import BenchmarkOptions
from pipelines.benchmarks.run import run_benchmark
from pipelines.cli.main import main
from pipelines.paths import Places
from pipelines.serving import hub as hub_module
from pipelines.serving.predict import AdaFocusPredictor
from pipelines.tracking.client import Tracker
from pipelines.tracking.models.checkpoints import SelectedCheckpoint
from pipelines.training.trial_logger import MODEL
from preprocessing.schema import UserError


@pytest.fixture
def video(make_video: Callable[..., Path], tmp_path: Path) -> Path:
    return make_video(tmp_path / "video.mp4", count=20)


@pytest.fixture
def model(checkpoints: dict[str, Path], synthetic_shards: str) -> AdaFocusPredictor:
    return AdaFocusPredictor(checkpoints["frame"], device="cpu", shards=synthetic_shards)


def logits(model: AdaFocusPredictor, video: Path) -> torch.Tensor:
    return model.predict(video).logits_TK


def test_a_folder_is_read_as_it_was_written(model: AdaFocusPredictor, video: Path, tmp_path: Path) -> None:
    folder = model.save_pretrained(tmp_path / "shared", licence="cc-by-4.0")
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    again = AdaFocusPredictor.from_pretrained(folder, device="cpu")
    assert torch.equal(logits(again, video), logits(model, video)) and again.class_names == model.class_names
    facts = json.loads((folder / "config.json").read_text())
    assert list(facts["id2label"].values()) == list(model.class_names) and facts["model_type"] == "adafocus"
    assert facts["preprocessing"]["extraction"]["height"] == model.spec.height
    with safe_open(folder / "model.safetensors", "pt") as tensors:
        assert tensors.metadata() == {"format": "pt"}
    model.save_pretrained(folder)  # again, over itself
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        model.save_pretrained(folder)


def test_no_place_of_this_machine_is_told(checkpoints: dict[str, Path], synthetic_shards: str, tmp_path: Path) -> None:
    loaded, meta = checkpoint.load_model(checkpoints["frame"])
    local = meta.config | {
        "model.glancer_weights": "/home/alice/w.pth",
        "model.focuser_weights": "C:\\Users\\bob\\f.pth",
    }
    checkpoint.save(tmp_path / "mine", loaded, replace(meta, config=local))
    folder = AdaFocusPredictor(tmp_path / "mine", device="cpu", shards=synthetic_shards).save_pretrained(
        tmp_path / "out"
    )
    text = (folder / "config.json").read_text() + (folder / "README.md").read_text()
    assert "w.pth" in text and "f.pth" in text and not any(word in text for word in ("alice", "bob", str(tmp_path)))


def test_the_card_says_what_mlflow_knows(
    checkpoints: dict[str, Path],
    synthetic_shards: str,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A trial that was benchmarked, shared by the command line, and read by it."""
    runs, folder = tmp_path / "runs", checkpoints["frame"]
    places, tracker = Places.of(synthetic_shards, runs), Tracker(runs)
    trial = tracker.run("synthetic", "trial", "mine", sweep="", trial="mine")
    trial.log_params({"recipe": "demo"})
    trial.log_artifact(folder, MODEL)
    trial.log_dataset("synthetic", "d", synthetic_shards)
    meta = checkpoint.read_meta(folder)
    (runs / folder.name).symlink_to(folder)
    trial.set_result(folder, meta.digest, "top1")
    trial.finish()
    measured = run_benchmark(
        SelectedCheckpoint(folder, trial.run_id, "mine"), places, Options(device="cpu"), BenchmarkOptions()
    )

    def call(*argv: object) -> int:
        monkeypatch.setattr(sys, "argv", ["adafocus", *map(str, argv)])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0)

    out = tmp_path / "shared"
    assert call("share", "--run", "mine", "--runs", runs, "--out", out, "--licence", "cc-by-4.0") == 0
    _, front, card = (out / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "cc-by-4.0" and yaml.safe_load(front)["library_name"] == "adafocus"
    assert f"| policy (AdaFocus) | {measured.rows[0]['top1']:.1f} |" in card and "Recipe: `demo`" in card
    assert f'from_pretrained("{out.name}")' in card and "{{" not in card and "Not benchmarked" not in card
    assert call("predict", video, "--checkpoint", out, "--device", "cpu") == 0
    assert str(video) in capsys.readouterr().out
    assert call("share", "--run", "mine", "--runs", runs, "--out", out, "--public") == 2

    (bench,) = tracker.find("benchmark")
    note = bench.data.tags["mlflow.note.content"]
    assert f"| policy (AdaFocus) | {measured.rows[0]['top1']:.1f} |" in note and "`compute.png`" in note
    assert bench.data.metrics["score"] == bench.data.metrics["val_top1"] == measured.rows[0]["top1"]


def test_what_is_no_model_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (tmp_path, "/nowhere/at/all", "./nowhere"):
        with pytest.raises(UserError, match=r"holds no shared model: there is no config\.json"):
            AdaFocusPredictor.from_pretrained(name)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="is no checkpoint's record"):
        AdaFocusPredictor.from_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install '\.\[hub\]'"):
        AdaFocusPredictor.from_pretrained("user/model")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server("hf_secret") as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "")
        yield hub


def test_up_to_a_hub_and_down_again(model: AdaFocusPredictor, video: Path, hub: Hub, tmp_path: Path) -> None:
    address = model.push_to_hub("alice/model", token="hf_secret")
    assert address == f"{hub.address}/alice/model/commit/{'c' * 40}" and hub.files["alice/model"].keys() == {
        "config.json",
        "model.safetensors",
        "README.md",
    }
    assert hub.created[0].get("private", hub.created[0].get("visibility") == "private")
    assert b'from_pretrained("alice/model")' in hub.files["alice/model"]["README.md"]
    hub.files["alice/model"]["setup.py"] = b"raise SystemExit"  # what is no part of a model is not fetched
    again = AdaFocusPredictor.from_pretrained("alice/model", device="cpu")
    assert torch.equal(logits(again, video), logits(model, video))
    assert not list((tmp_path / "cache").rglob("setup.py"))


def test_what_a_hub_refuses_is_a_line(model: AdaFocusPredictor, hub: Hub) -> None:
    with pytest.raises(UserError, match=r"the hub does not take alice/model: .*401 Unauthorized"):
        model.push_to_hub("alice/model", token="hf_wrong")
    model.push_to_hub("alice/open", token="hf_secret", private=False)
    with pytest.raises(UserError, match="alice/open exists and is public: say --public"):
        model.push_to_hub("alice/open", token="hf_secret")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(UserError, match="the hub cannot be reached"):
            model.push_to_hub("alice/model", token="hf_secret")
    with pytest.raises(UserError, match="nobody/nothing is no folder, and cannot be had from the hub"):
        AdaFocusPredictor.from_pretrained("nobody/nothing")
    with pytest.raises(UserError, match="cannot be had from the hub"):
        hub_module.find_pretrained("not a name")
