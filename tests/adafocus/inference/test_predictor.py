"""A file and its packed clip have the same answer; frame by frame and whole clip have the same answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from adafocus.acceleration.accelerate import accelerate
from adafocus.checkpoint import META, load_model, save
from adafocus.config.overrides import override
from adafocus.data.clip_table import ClipTable
from adafocus.data.decoding import decode_all, frame_size
from adafocus.data.loader import ClipLoader
from adafocus.evaluation.evaluate import evaluate
from adafocus.inference.prediction import VideoError
from adafocus.inference.predictor import TIMED, AdaFocusPredictor
from adafocus.methods import build_model
from adafocus.models.adafocus import Patches
from preprocessing.schema import UserError
from preprocessing.shards.index import read_index
from preprocessing.shards.storage import Store

REGIMES = ("frame", "clip", "uni", "uni per clip")


@pytest.mark.parametrize("patches", ["policy", "centre"])
@pytest.mark.parametrize("regime", REGIMES)
def test_a_file_and_its_packed_clip_have_the_same_logits(
    regime: str, patches: Patches, checkpoints: dict[str, Path], synthetic_root: Path, synthetic_shards: str
) -> None:
    predictor = AdaFocusPredictor.from_folder(checkpoints[regime], patches=patches)
    data = predictor.config.data
    loader = ClipLoader(synthetic_shards, "val", data, batch_size=1, train=False)
    packed = evaluate(accelerate(load_model(checkpoints[regime])[0]), loader, patches=patches)
    table = read_index(Store(synthetic_shards)).table.to_pylist()
    sources = {row["clip_id"]: row["source"] for row in table if row["split"] == "val"}
    assert len(sources) == len(packed.clip_ids) == 10
    for clip_id, logits_TK, corners_S2 in zip(
        packed.clip_ids,
        packed.logits_NTK,
        packed.corners_NS2,
        strict=True,
    ):
        found = predictor.predict(synthetic_root / sources[clip_id])
        assert torch.equal(found.logits_TK, logits_TK)
        assert torch.equal(found.corners_T2, corners_S2.expand_as(found.corners_T2))
        if packed.places_NF is not None:
            assert torch.equal(found.places_T, packed.places_NF[packed.clip_ids.index(clip_id)])
        assert found.source.num_frames == 8 and list(found.times_ms) == list(TIMED)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model.reuse_glance": False},
        {"model.classifier": "linear"},
        {"model.classifier": "average"},
        {"model.action": "gaussian", "model.policy_norm": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("patches", ["policy", "centre"])
def test_step_by_step_and_whole_clip_agree(
    changes: dict[str, object],
    patches: Patches,
    checkpoints: dict[str, Path],
    synthetic_shards: str,
    synthetic_root: Path,
    tmp_path: Path,
) -> None:
    _, meta = load_model(checkpoints["frame"])
    torch.manual_seed(2)
    config = override(load_model(checkpoints["frame"])[0].config, changes)
    flat = dict(meta.config) | changes
    save(tmp_path, build_model(config, 10).eval(), replace(meta, config=flat))
    predictor = AdaFocusPredictor.from_folder(tmp_path, patches=patches)
    table = ClipTable(synthetic_shards, "val")
    path = synthetic_root / read_index(Store(synthetic_shards)).table["source"][int(table.rows[3])].as_py()
    whole = predictor.predict(path)
    clip = predictor.read(path)
    jpegs = table.read(3, clip.index_T)
    stream = predictor.stream()
    for step, frame_CHW in enumerate(decode_all(jpegs, frame_size(jpegs[0]), end=10**6, fast=False)):
        running = stream.push(frame_CHW.permute(1, 2, 0).contiguous().numpy())
        assert running.num_frames == step + 1 and running.corner == tuple(whole.corners_T2[step].tolist())
        torch.testing.assert_close(running.logits_K, whole.logits_TK[step], rtol=1e-4, atol=1e-5)
    assert step == 3
    top, left, bottom, right = running.box  # the frames have the size of the crop
    assert (top, left) == running.corner and bottom - top == right - left == 16


def test_the_patch_is_found_again_in_a_larger_frame(checkpoints: dict[str, Path]) -> None:
    stream = AdaFocusPredictor.from_folder(checkpoints["frame"], patches="centre").stream()
    running = stream.push(np.zeros((80, 160, 3), np.uint8))  # halved, then the middle 40 of 80 columns
    assert running.corner == (12, 12) and running.box == (24, 64, 56, 96)


def test_streams_refuse_what_they_cannot_take(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="glances at the whole clip"):
        AdaFocusPredictor.from_folder(checkpoints["clip"]).stream()
    stream = AdaFocusPredictor.from_folder(checkpoints["frame"]).stream()
    with pytest.raises(ValueError, match="uint8"):
        stream.push(np.zeros((48, 64, 3), np.float32))
    stream.push(np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(ValueError, match=r"\(48, 62\).*\(48, 64\)"):
        stream.push(np.zeros((48, 62, 3), np.uint8))


@pytest.mark.parametrize("regime", REGIMES[:2])
def test_the_policys_map_is_a_distribution_with_its_mode_at_the_patch(
    regime: str, checkpoints: dict[str, Path], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    predictor = AdaFocusPredictor.from_folder(checkpoints[regime])
    found = predictor.predict(make_video(tmp_path / "a.mp4"))
    assert found.map_Skk is not None
    torch.testing.assert_close(found.map_Skk.sum((-2, -1)), torch.ones(len(found.map_Skk)))
    cells, room = found.map_Skk.shape[-1], 40 - 16
    for step, map_kk in enumerate(found.map_Skk):
        best = divmod(int(map_kk.argmax()), cells)
        corner = torch.tensor([index * room // (cells - 1) for index in best])
        assert (corner - found.corners_T2[step]).abs().max() <= (0 if regime == "frame" else room // cells + 1)
    assert AdaFocusPredictor.from_folder(checkpoints[regime], patches="random").predict(found.name).map_Skk is None


def test_what_it_says(checkpoints: dict[str, Path], make_video: Callable[..., Path], tmp_path: Path) -> None:
    predictor = AdaFocusPredictor.from_folder(checkpoints["clip"])
    found = predictor.predict(make_video(tmp_path / "a.mp4"))
    assert [count for count, _, _ in found.course()] == [1, 2, 4, 6]
    top = found.top(3)
    assert len(top) == 3 and [p for _, p in top] == sorted((p for _, p in top), reverse=True)
    assert top[0] == found.course()[-1][1:] and top[0][0] in predictor.class_names
    assert sum(p for _, p in found.top(99)) == pytest.approx(1)
    assert found.gflops["total"] == pytest.approx(sum(found.gflops[part] for part in found.gflops if part != "total"))


def test_unreadable_files_say_why(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    predictor = AdaFocusPredictor.from_folder(checkpoints["frame"])
    (tmp_path / "a.mp4").write_bytes(b"none")
    with pytest.raises(VideoError, match="probe_failed"):
        predictor.predict(tmp_path / "a.mp4")


def test_old_checkpoints_take_the_extraction_from_the_index(
    checkpoints: dict[str, Path], synthetic_shards: str, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    shutil.copytree(checkpoints["frame"], old)
    record = json.loads((old / META).read_text())
    assert record.pop("extraction")["height"] == 40
    (old / META).write_text(json.dumps(record))
    with pytest.raises(UserError, match="give its data set"):
        AdaFocusPredictor.from_folder(old)
    assert AdaFocusPredictor.from_folder(old, shards=synthetic_shards).spec.height == 40
    (old / META).write_text(json.dumps(record | {"digest": "other"}))
    with pytest.raises(UserError, match="another data set"):
        AdaFocusPredictor.from_folder(old, shards=synthetic_shards)
