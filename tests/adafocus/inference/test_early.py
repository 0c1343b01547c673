"""With a budget a video is predicted as far as its exit: the same answer as of all exits, and nothing behind it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from adafocus import checkpoint
from adafocus.inference import predictor as module
from adafocus.inference.early import JpegFrames
from adafocus.inference.prediction import Prediction, VideoError
from adafocus.inference.predictor import TIMED, AdaFocusPredictor
from adafocus.training.calibrate import calibrate
from adafocus.training.reports import Options
from preprocessing.media.arriving import ArrivingFrames
from preprocessing.schema import UserError


@pytest.fixture
def folder(checkpoints: dict[str, Path], synthetic_shards: str, tmp_path: Path) -> Path:
    """A calibrated checkpoint."""
    copy = Path(shutil.copytree(checkpoints["frame"], tmp_path / "finetune-calibrated"))
    calibrate(copy, synthetic_shards, Options(device="cpu"))
    return copy


def stopping_after(folder: Path, frames: int, **options: object) -> AdaFocusPredictor:
    """A predictor whose clips all stop after so many frames."""
    model = AdaFocusPredictor(folder, budget=99.0, **options)
    assert model.rule is not None
    thresholds = tuple(1e8 if number < frames - 1 else -1e8 for number in range(len(model.rule.thresholds)))
    model.rule = replace(model.rule, thresholds=thresholds)
    return model


def test_budgets_save_compute_and_stop_where_the_whole_clip_is_sure(
    folder: Path, synthetic_root: Path, tmp_path: Path
) -> None:
    paths = sorted((synthetic_root / "val").rglob("*.mp4"))
    assert len(paths) == 10
    whole = AdaFocusPredictor(folder)
    early = AdaFocusPredictor(folder, budget=0.6 * whole.gflops["total"])
    assert early.rule is not None
    seen = set()
    for path in paths:
        wanted, found = whole.predict(path), early.predict(path)
        count = len(found.logits_TK)
        sure = [bool(early.rule.leaves(number, wanted.logits_TK[number][None])) for number in range(4)]
        assert count == sure.index(True) + 1
        torch.testing.assert_close(found.logits_TK, wanted.logits_TK[:count], rtol=1e-4, atol=1e-5)
        assert torch.equal(found.corners_T2, wanted.corners_T2[:count])
        assert found.gflops["total"] == pytest.approx(wanted.gflops["total"] * count / 4)
        assert found.map_Skk is not None and wanted.map_Skk is not None and len(found.map_Skk) == count
        assert found.course()[-1][0] == count and list(found.times_ms) == list(TIMED)
        seen.add(count)
    assert len(seen) > 1
    sources = [model.predict(paths[0]).source for model in (whole, early)]
    assert sources[0] == replace(sources[1], returncode=0), "the exit status is not known of an ffmpeg that is stopped"


def test_a_clip_that_never_stops_is_read_to_its_end_and_checked(folder: Path, synthetic_root: Path) -> None:
    path = next((synthetic_root / "val").rglob("*.mp4"))
    whole, early = AdaFocusPredictor(folder).predict(path), AdaFocusPredictor(folder, budget=99.0).predict(path)
    torch.testing.assert_close(early.logits_TK, whole.logits_TK, rtol=1e-4, atol=1e-5)
    assert early.source == whole.source and early.gflops == pytest.approx(whole.gflops)


@pytest.mark.parametrize("order", ["time", "spread"])
def test_only_frames_up_to_the_exit_are_decoded_and_computed(
    order: str, folder: Path, make_video: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = checkpoint.read_meta(folder)
    checkpoint.write_meta(folder, replace(meta, config=meta.config | {"data.frame_order": order}))
    model = stopping_after(folder, 2)
    decoded: list[int] = []
    real = ArrivingFrames.__getitem__
    monkeypatch.setattr(ArrivingFrames, "__getitem__", lambda self, index: decoded.append(index) or real(self, index))
    glanced: list[int] = []
    glance = type(model.model).glance
    monkeypatch.setattr(type(model.model), "glance", lambda self, x: glanced.append(x.shape[1]) or glance(self, x))
    clip, found = model.predict_early(make_video(tmp_path / "a.mp4", count=24))
    assert len(found.logits_TK) == 2 == sum(glanced)
    assert decoded == model.focus_index(24)[:2].tolist() == clip.index_T.tolist()
    assert len(clip.focus_TCHW) == 2


def test_decoding_stops_behind_the_exit(folder: Path, run_ffmpeg: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "long.mkv"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=1280x720:d=12:r=50", "-c:v", "mpeg4", "-q:v", "3", path)
    whole = AdaFocusPredictor(folder).predict(path)
    early = stopping_after(folder, 1).predict(path)
    assert early.times_ms["decode"] < 0.6 * whole.times_ms["decode"]
    torch.testing.assert_close(early.logits_TK, whole.logits_TK[:1], rtol=1e-4, atol=1e-5)


def test_what_the_packets_do_not_tell_is_read_as_a_whole(
    folder: Path, make_video: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = AdaFocusPredictor(folder, budget=99.0)
    video = make_video(tmp_path / "a.mp4", count=12)
    wanted = model.predict(video)

    class Miscounted(ArrivingFrames):
        def __init__(self, path: Path, spec: object, rule: Callable[[int], list[int]], **options: object) -> None:
            super().__init__(path, spec, lambda count: rule(count + 8), **options)
            self.num_frames += 8

    monkeypatch.setattr(module, "ArrivingFrames", Miscounted)
    assert same(model.predict(video), wanted)
    (tmp_path / "broken.avi").write_bytes(b"no video")
    with pytest.raises(VideoError, match="probe_failed"):
        model.predict(tmp_path / "broken.avi")


def test_folders_and_arrays_stop_early_too(folder: Path, make_video: Callable[..., Path], tmp_path: Path) -> None:
    model = stopping_after(folder, 3)
    frames = np.random.default_rng(0).integers(0, 255, (12, 48, 64, 3), np.uint8)
    assert len(model.predict(frames).logits_TK) == 3
    assert not ArrivingFrames.fits(tmp_path, model.spec)
    assert not ArrivingFrames.fits(tmp_path / "a.mp4", replace(model.spec, fps=5.0))
    assert ArrivingFrames.fits(tmp_path / "a.mp4", model.spec)


def test_a_stream_ends_when_the_model_is_sure(folder: Path) -> None:
    model = stopping_after(folder, 2)
    frames = np.random.default_rng(0).integers(0, 255, (4, 48, 64, 3), np.uint8)
    stream = model.stream()
    answers = [stream.push(frame) for frame in frames]
    assert [answer.is_final for answer in answers] == [False, True, True, True]
    assert answers[3] is answers[1] and answers[1].num_frames == 2
    model.set_budget(None)
    assert not any(answer.is_final for answer in map(model.stream().push, frames))


def test_a_budget_that_is_too_small_is_one_line(folder: Path) -> None:
    with pytest.raises(UserError, match="a budget of 1e-06 GFLOPs is below"):
        AdaFocusPredictor(folder, budget=1e-6)


def test_a_frame_is_taken_only_when_it_is_asked_for(
    folder: Path, make_video: Callable[..., Path], tmp_path: Path
) -> None:
    model = AdaFocusPredictor(folder)
    path = make_video(tmp_path / "a.mp4", count=20)
    clip = model.read(path)
    with ArrivingFrames(path, model.spec, lambda count: list(range(count))) as jpegs:
        frames = JpegFrames(jpegs, clip.index_T.tolist(), model.config.data)
        assert jpegs.num_frames == 20 and torch.equal(frames(range(1, 3)), clip.focus_TCHW[1:3])
        assert jpegs.is_sound and jpegs.result.status == "ok" and jpegs.result.num_frames == 20
        jpegs.read_to_the_end()
        assert jpegs.is_sound
        with pytest.raises(LookupError, match="ends before frame 99"):
            jpegs[99]


def same(found: Prediction, wanted: Prediction) -> bool:
    return torch.allclose(found.logits_TK, wanted.logits_TK, rtol=1e-4, atol=1e-5) and found.source == wanted.source


@pytest.mark.parametrize("kind", ["uni", "uni per clip"])
def test_a_model_that_glances_first_may_stop_before_any_look(
    kind: str, checkpoints: dict[str, Path], synthetic_shards: str, make_video: Callable[..., Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(checkpoints[kind], tmp_path / "calibrated"))
    calibration = calibrate(copy, synthetic_shards, Options(device="cpu"))
    video = make_video(tmp_path / "a.mp4", count=24)
    whole = AdaFocusPredictor(copy)
    clip, wanted = whole.predict_clip(whole.read(video))
    assert clip.index_T.tolist() == whole.focus_index(24)[wanted.places_T.numpy()].tolist()
    assert wanted.gflops["total"] == pytest.approx(calibration.costs[-1])
    for exits in range(1, len(calibration.costs) + 1):
        clip, found = stopping_after(copy, exits).predict_early(video)
        torch.testing.assert_close(found.logits_TK, wanted.logits_TK[:exits], rtol=1e-4, atol=1e-5)
        assert found.gflops["total"] == pytest.approx(calibration.costs[exits - 1])
        looks = wanted.exit_frames[exits - 1]
        assert found.course()[-1][0] == looks == found.exit_frames[-1]
        assert len(clip.focus_TCHW) == len(clip.index_T) == len(found.corners_T2) == len(found.after_frames)
        if looks:
            torch.testing.assert_close(found.corners_T2, wanted.corners_T2[:looks])
            torch.testing.assert_close(found.sizes_T2, wanted.sizes_T2[:looks])
            assert found.places_T.tolist() == wanted.places_T[:looks].tolist() and found.looks_T is None
            counted = whole.read(video)
            boxes = torch.as_tensor(counted.index_T).float()[:, None].expand(-1, 4)
            boxed, _ = stopping_after(copy, exits).predict_clip(replace(counted, boxes_T4=boxes))
            assert boxed.boxes_T4 is not None and boxed.boxes_T4[:, 0].tolist() == boxed.index_T.tolist()
        else:  # then the glances are shown, as frames that the focuser did not look at
            assert len(clip.focus_TCHW) == 4 and not found.looks_T.any() and found.gflops["focuser"] == 0
    with pytest.raises(UserError, match="glances at the whole clip"):
        whole.stream()
