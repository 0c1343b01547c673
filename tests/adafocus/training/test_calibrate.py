"""A checkpoint is calibrated once, on clips that are named, and keeps its thresholds."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from adafocus import checkpoint
from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.data.clip_table import is_held_out
from adafocus.data.loader import ClipLoader
from adafocus.data.stream import ClipStream
from adafocus.evaluation.calibration import Calibration
from adafocus.inference.predictor import AdaFocusPredictor
from adafocus.training.calibrate import calibrate
from adafocus.training.reports import Options
from preprocessing.schema import UserError

CPU = Options(device="cpu")


@pytest.fixture
def folder(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoints["frame"], tmp_path / "finetune-copy"))


def with_setting(folder: Path, name: str, value: object) -> None:
    meta = checkpoint.read_meta(folder)
    checkpoint.write_meta(folder, replace(meta, config=meta.config | {name: value}))


def test_it_is_found_calibrated(folder: Path, synthetic_shards: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    first = calibrate(folder, synthetic_shards, CPU)
    assert (first.criterion, first.clips, first.num_clips) == ("confidence", "train", 24)
    meta = checkpoint.read_meta(folder)
    assert Calibration.of(meta.exits) == first and Calibration.of(json.loads(json.dumps(asdict(first)))) == first
    assert meta.weights and (folder / meta.weights).exists()
    assert calibrate(folder, synthetic_shards, CPU) == first and "finetune-copy: found calibrated" in caplog.messages
    other = calibrate(folder, synthetic_shards, CPU, criterion="entropy")
    assert other.criterion == "entropy" and all(t <= 0 or t == 1e8 for row in other.thresholds for t in row)
    assert AdaFocusPredictor(folder, budget=99.0).rule == other.rules()[-1]


def test_thresholds_come_from_clips_that_training_leaves_out(folder: Path, synthetic_shards: str) -> None:
    with pytest.raises(UserError, match=r"trained on all clips: --set data\.held_out"):
        calibrate(folder, synthetic_shards, CPU, clips="held-out")
    with_setting(folder, "data.held_out", 0.3)
    found = calibrate(folder, synthetic_shards, CPU)
    assert found.clips == "held-out" and 0 < found.num_clips < 24
    assert calibrate(folder, synthetic_shards, CPU, clips="train").num_clips == 24


def test_training_sees_none_of_the_clips_that_are_left_out(tiny_config: Config, synthetic_shards: str) -> None:
    data = override(tiny_config, {"data.held_out": 0.3}).data
    options = {"batch_size": 4}
    kept = set(ClipLoader(synthetic_shards, "train", data, train=True, **options).clip_ids)
    held = set(ClipLoader(synthetic_shards, "train", data, train=False, held_out=True, **options).clip_ids)
    every = set(ClipLoader(synthetic_shards, "train", data, train=False, **options).clip_ids)
    assert kept | held == every and not kept & held and kept and held
    assert held == {clip_id for clip_id in every if is_held_out(clip_id, 0.3)}
    assert set(ClipStream(synthetic_shards, "train", data, train=True, **options).clip_ids) == kept
    few = override(tiny_config, {"data.held_out": 1e-9}).data
    with pytest.raises(UserError, match="leaves no clip of split 'train'"):
        ClipLoader(synthetic_shards, "train", few, train=False, held_out=True, **options)


def test_about_the_share_is_left_out() -> None:
    names = [f"clip {number}" for number in range(2000)]
    counts = [sum(is_held_out(name, share) for name in names) for share in (0.0, 0.1, 0.5)]
    assert counts[0] == 0 and abs(counts[1] - 200) < 60 and abs(counts[2] - 1000) < 120


def test_what_cannot_be_calibrated_says_why(
    folder: Path, checkpoints: dict[str, Path], synthetic_shards: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="early exit saves nothing with this model"):
        calibrate(checkpoints["clip"], synthetic_shards, CPU)
    with pytest.raises(UserError, match="early exit saves nothing with this model"):
        AdaFocusPredictor(checkpoints["clip"], budget=1.0)
    with pytest.raises(UserError, match="no thresholds of early exit yet: `adafocus calibrate`"):
        AdaFocusPredictor(folder, budget=1.0)
    with pytest.raises(UserError, match="of the policy's patches: no budget with patches centre"):
        AdaFocusPredictor(folder, budget=1.0, patches="centre")
    meta = checkpoint.read_meta(folder)
    checkpoint.write_meta(folder, replace(meta, stage="warmup"))
    with pytest.raises(UserError, match="of stage warmup, after which its policy is not trained"):
        calibrate(folder, synthetic_shards, CPU)
    checkpoint.write_meta(folder, replace(meta, info=meta.info | {"class_names": ["x"] * 10}))
    with pytest.raises(UserError, match="knows other classes"):
        calibrate(folder, synthetic_shards, CPU)


def test_a_record_of_an_earlier_version_has_no_thresholds(folder: Path) -> None:
    record = json.loads((folder / checkpoint.META).read_text())
    assert record.pop("exits") == {}
    (folder / checkpoint.META).write_text(json.dumps(record))
    assert checkpoint.read_meta(folder).exits == {}


def test_logits_that_are_no_numbers_give_no_thresholds(folder: Path, synthetic_shards: str) -> None:
    model, meta = checkpoint.load_model(folder)
    torch.nn.init.constant_(model.classifier.last.bias, float("nan"))
    checkpoint.save(folder, model, meta)
    with pytest.raises(RuntimeError, match="logits are NaN"):
        calibrate(folder, synthetic_shards, CPU)
    assert checkpoint.read_meta(folder).exits == {}
