"""What the page says of a video is what the predictor says of it, and a budget really stops it early."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from adafocus.training.calibrate import calibrate
from adafocus.training.reports import Options
from pipelines.app.answer import WHOLE, ShownModel
from pipelines.app.examples import COUNT, find_examples
from pipelines.serving.predict import AdaFocusPredictor
from preprocessing.schema import UserError


@pytest.fixture(scope="module")
def calibrated(
    checkpoints: dict[str, Path], synthetic_shards: str, tmp_path_factory: pytest.TempPathFactory
) -> ShownModel:
    folder = tmp_path_factory.mktemp("calibrated") / "joint-copy"
    shutil.copytree(checkpoints["second"], folder)
    calibrate(folder, synthetic_shards, Options(device="cpu"))
    return ShownModel("second", AdaFocusPredictor(folder, device="cpu", shards=synthetic_shards))


def shown(html: str) -> dict[str, object]:
    """The clip that a model's own page shows."""
    found = re.search(r"^const DATA = (.*);$", html, re.MULTILINE)
    assert found
    (section,) = json.loads(found[1])["sections"]
    (clip,) = section["clips"]
    return dict(clip)


def test_a_file(calibrated: ShownModel, make_video: Callable[..., Path], tmp_path: Path) -> None:
    video = make_video(tmp_path / "<b>video.MP4", count=20)
    answer, prediction = calibrated.answer(video), calibrated.predictor.predict(video)
    clip = shown(answer.html)
    assert clip["best"][-1]["name"] == prediction.top(1)[0][0] and clip["truth"] is None
    assert clip["parts"] == {key: value for key, value in prediction.gflops.items() if key != "total" and value}
    assert "saw all 4 frames" in answer.summary and f"{prediction.gflops['total']:.3g} GFLOPs (100%" in answer.summary
    assert "<b>video" not in answer.html


def test_a_budget_stops_it(calibrated: ShownModel, synthetic_shards: str) -> None:
    examples = find_examples(synthetic_shards)
    assert 1 < len(examples) <= COUNT and examples[0].title.startswith(f"1. {examples[0].truth} (")
    whole, least = calibrated.answer(examples[0]), calibrated.answer(examples[0], 5)
    assert shown(whole.html)["truth"] == examples[0].truth
    assert len(shown(least.html)["frames"]) < len(shown(whole.html)["frames"]) == 4  # type: ignore[arg-type]
    assert "stopped after" in least.summary and "The least budget is" in least.summary
    assert calibrated.answer(examples[0], WHOLE).summary.startswith("It saw all 4 frames"), "a budget stayed behind"


def test_a_model_without_thresholds_says_so(checkpoints: dict[str, Path], synthetic_shards: str) -> None:
    model = ShownModel("first", AdaFocusPredictor(checkpoints["frame"], device="cpu", shards=synthetic_shards))
    answer = model.answer(find_examples(synthetic_shards)[0], 50)
    assert "saw all 4 frames" in answer.summary and "`adafocus calibrate` solves them" in answer.summary


def test_what_is_no_video_is_refused(calibrated: ShownModel, tmp_path: Path) -> None:
    script, text = tmp_path / "run.sh", tmp_path / "text.mp4"
    script.write_text("#!/bin/sh\ntouch /tmp/executed\n")
    text.write_text("no video")
    with pytest.raises(UserError, match=r"run\.sh is no video: its name ends in none of \.mp4"):
        calibrated.answer(script)
    with pytest.raises(UserError, match=r"probe_failed|decode_failed"):
        calibrated.answer(text)
