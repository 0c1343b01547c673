"""A model that skips frames, as users meet it: predictions, pictures, benchmarks; what cannot be is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adafocus.evaluation import multiply_adds
from adafocus.inference.predictor import AdaFocusPredictor
from adafocus.training.reports import Options
from pipelines.benchmarks.benchmark import measure_checkpoint
from pipelines.benchmarks.options import BenchmarkOptions
from pipelines.paths import Places
from pipelines.serving.export import export
from pipelines.tracking import metric_names
from pipelines.visualize.explain.explain import explain
from pipelines.visualize.patch_strips import CELL
from preprocessing.schema import UserError

CPU = Options(device="cpu")


def test_skipped_frames_are_grey_and_cost_no_focus(
    checkpoints: dict[str, Path], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    model = AdaFocusPredictor.from_folder(checkpoints["plus"])
    clip = model.read(make_video(tmp_path / "a.mp4", count=13, height=64, width=100))
    model.model.gate.threshold.fill_(torch.finfo(torch.float32).max)
    skipping = model.predict_frames(clip)
    assert skipping.looks_T is not None and not skipping.looks_T.any() and skipping.gflops["focuser"] == 0
    model.model.gate.threshold.fill_(torch.finfo(torch.float32).min)
    looking = model.predict_frames(clip)
    assert looking.gflops == pytest.approx(multiply_adds.count(model.config, 10, looks=1.0))
    object.__setattr__(looking, "looks_T", torch.tensor([True, False, True, True]))
    png, _, html = explain(model, clip, looking, tmp_path / "out")
    drawn = json.loads(re.search(r"^const DATA = (.*);$", html.read_text(), re.MULTILINE)[1])
    assert drawn["sections"][0]["clips"][0]["looked"] == [True, False, True, True]
    image = np.asarray(Image.open(png)).astype(int)
    for step, looked in enumerate(looking.looks_T.tolist()):
        left = 8 + step * (CELL + 8)
        frame = image[44 + 20 : 44 + CELL, left : left + CELL]
        assert (np.ptp(frame, axis=-1).max() > 100) == looked, "a green box, or grey all over"


def test_a_benchmark_has_what_skipping_has_to_beat(checkpoints: dict[str, Path], synthetic_shards: str) -> None:
    places = Places.of(synthetic_shards, checkpoints["plus"].parent)
    measured = measure_checkpoint(checkpoints["plus"], places, CPU, BenchmarkOptions(batch_size=5))
    rows = {row.key(): row for row in measured.rows}
    assert list(rows)[:4] == ["policy", "policy_every", "policy_random", "policy_fewer"]
    assert all(metric_names.explain(f"bench/{key}/top1") for key in rows)
    looks = measured.predictions["policy"].looks_NT
    share = looks.float().mean().item()
    assert 0 < share < 1 and measured.predictions["policy"].metrics()["looked"] == pytest.approx(100 * share)
    config = AdaFocusPredictor.from_folder(checkpoints["plus"]).config
    assert rows["policy"].gflops == pytest.approx(multiply_adds.count(config, 10, looks=share)["total"])
    assert rows["policy_every"].gflops == pytest.approx(multiply_adds.count(config, 10, looks=1.0)["total"])
    assert measured.facts["gflops.focuser"] < multiply_adds.count(config, 10, looks=1.0)["focuser"]
    assert rows["policy"].gflops <= rows["policy_fewer"].gflops < rows["policy_every"].gflops * 1.001
    seen = re.search(r"policy, (\d) frames evenly spread", rows["policy_fewer"].method)
    assert seen and len(rows["policy_fewer"].online) == int(seen[1])
    assert len(measured.predictions["policy"].table()["looked"][0].as_py()) == config.data.num_frames


def test_what_cannot_be_is_refused_in_one_line(
    checkpoints: dict[str, Path], synthetic_shards: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="cannot be exported: its gate decides how many patches"):
        export(checkpoints["plus"], tmp_path / "out", shards=synthetic_shards)
    assert not (tmp_path / "out").exists()
    places = Places.of(synthetic_shards, tmp_path)
    with pytest.raises(UserError, match="cannot be compiled"):
        measure_checkpoint(checkpoints["plus"], places, CPU, BenchmarkOptions(compile=True))
