"""Exported folders and logged models answer in processes of their own, and as the model does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from adafocus.checkpoint import load_model
from adafocus.inference.predictor import AdaFocusPredictor
from adafocus.interop.programs import programs_of
from helpers.tiny import numbered_frames
from pipelines.cli.main import main
from pipelines.serving.log_model import log_model
from pipelines.tracking.client import Tracker
from preprocessing.media.frame_stream import extract_frames

REGIMES = ("frame", "clip")


def cli(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["adafocus", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def fresh(*arguments: object, **environment: str) -> str:
    """Standard output of a Python process that starts in the root folder, where this project is not."""
    argv = [sys.executable, *map(str, arguments)]
    done = subprocess.run(argv, cwd="/", env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=REGIMES)
def exported(
    request: pytest.FixtureRequest,
    checkpoints: dict[str, Path],
    synthetic_shards: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:
    """(checkpoint, exported folder)."""
    source = checkpoints[request.param]
    out = tmp_path_factory.mktemp("export") / "model"
    with pytest.MonkeyPatch.context() as patch:
        assert cli(patch, "export", "--checkpoint", source, "--out", out, "--shards", synthetic_shards) == 0
    return source, out


@pytest.mark.parametrize("exported", [*REGIMES, pytest.param("uni", marks=pytest.mark.slow)], indirect=True)
def test_the_folder_says_what_is_in_it(exported: tuple[Path, Path]) -> None:
    source, out = exported
    parts = ("glancer", "policy", "focuser", "classifier")
    names = {path.name for path in out.iterdir() if not path.name.startswith("weights-")}
    files = {f"{part}.{kind}" for part in parts for kind in ("pt2", "onnx")}
    assert names == files | {"README.md", "facts.json", "meta.json", "predict_onnx.py"}
    facts = json.loads((out / "facts.json").read_text())
    for part in parts:
        assert 0 <= facts["programs"][part]["pt2_error"] < 1e-4 and 0 <= facts["programs"][part]["onnx_error"] < 1e-4
    assert facts["class_names"] == [str(digit) for digit in range(10)]
    assert facts["preprocessing"]["extraction"]["height"] == 40
    assert ":h=40" in (out / "README.md").read_text() and "$" not in (out / "README.md").read_text()
    glanced = facts["preprocessing"]["glance_places"]
    said = f"numbers {', '.join(map(str, glanced))} of" if glanced else "the centres of equal parts"
    assert said in (out / "README.md").read_text()
    (left, _), (right, meta) = load_model(source), load_model(out)  # it is a checkpoint too
    assert all(torch.equal(value, right.state_dict()[name]) for name, value in left.state_dict().items())
    assert meta.extraction["height"] == 40


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("second", "uni", "uni per clip")]


@pytest.mark.parametrize("exported", [*REGIMES, *SLOW], indirect=True)
def test_another_program_predicts_the_same(
    exported: tuple[Path, Path], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    source, out = exported
    model = AdaFocusPredictor.from_folder(source)
    path = make_video(tmp_path / "a.mp4", count=23)
    with extract_frames(path, model.spec) as stream:
        for number, jpeg in enumerate(stream):
            (tmp_path / f"{number:06d}.jpg").write_bytes(jpeg)
    wanted = model.predict(path)
    # The views agree up to rounding (Pillow scales here), and so do the answers.
    found = json.loads(fresh(out / "predict_onnx.py", *sorted(tmp_path.glob("*.jpg"))))
    torch.testing.assert_close(torch.tensor(found["probability"]), wanted.probability, rtol=0, atol=0.02)
    corners = torch.tensor(found["corners"])
    tolerance = 0.01 * model.config.data.crop if corners.is_floating_point() else 0
    torch.testing.assert_close(corners.expand_as(wanted.corners_T2), wanted.corners_T2, rtol=0, atol=tolerance)
    assert ("sizes" in found) == (wanted.sizes_T2 is not None)
    if wanted.sizes_T2 is not None:
        torch.testing.assert_close(torch.tensor(found["sizes"]), wanted.sizes_T2, rtol=0, atol=tolerance)
    assert found["top"][0]["class"] == wanted.top(1)[0][0]


def test_torch_loads_the_parts_in_a_process_of_its_own(exported: tuple[Path, Path], tmp_path: Path) -> None:
    source, out = exported
    program = programs_of(load_model(source)[0]).take_apart()[0]
    frames = torch.randint(256, (program.inputs["frames"].shape[0] + (3 if program.any_number else 0), 3, 40, 40))
    frames = frames.to(torch.uint8)
    torch.save(frames, tmp_path / "frames.pt")
    code = (
        "import sys, torch; sys.modules['adafocus'] = None\n"
        "module = torch.export.load(sys.argv[1]).module()\n"
        "torch.save(module(torch.load(sys.argv[2])), sys.argv[3])"
    )
    fresh("-c", code, out / "glancer.pt2", tmp_path / "frames.pt", tmp_path / "found.pt")
    with torch.no_grad():
        wanted = program.module(frames)
    for left, right in zip(torch.load(tmp_path / "found.pt"), wanted, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


SERVED = """
import json, sys
import mlflow, numpy as np, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
table = model.predict(pd.DataFrame({"path": sys.argv[2:]}))
frames = np.load(sys.argv[2] + ".npy")
array = model.predict(pd.DataFrame({"frames": [frames.tolist()]}))
import adafocus
print(json.dumps({"paths": table.to_dict("records"), "array": array.to_dict("records"), "code": adafocus.__file__}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("exported", ["frame"], indirect=True)
def test_mlflow_loads_it_in_a_process_of_its_own(
    exported: tuple[Path, Path], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    source, out = exported
    tracker = Tracker(tmp_path / "runs")
    run = tracker.run("synthetic", "trial", "mine", sweep="", trial="mine")
    uri = log_model(tracker.open(run.run_id), out)
    assert "MLFLOW_TRACKING_URI" not in os.environ  # MLflow would leave it there
    path = make_video(tmp_path / "a.mp4")
    frames = np.stack(numbered_frames(12))
    np.save(f"{path}.npy", frames)
    told = json.loads(fresh("-c", SERVED, uri, path, "/none.mp4", MLFLOW_TRACKING_URI=tracker.uri).splitlines()[-1])
    model = AdaFocusPredictor.from_folder(source)
    wanted = model.predict(path).top(1)[0]
    assert told["paths"][0]["class"] == wanted[0] and told["paths"][0]["probability"] == pytest.approx(wanted[1])
    assert told["paths"][0]["error"] == "" and told["paths"][1]["error"].startswith("missing")
    wanted = model.predict(frames).top(1)[0]
    assert told["array"][0]["class"] == wanted[0] and told["array"][0]["probability"] == pytest.approx(wanted[1])
    assert str(tmp_path / "runs") in told["code"]  # the logged code, not this checkout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "o"), "give exactly one of --run, --sweep and --checkpoint"),
        (("--checkpoint", "CHECKPOINT", "--out", "o"), "give --shards or --video"),
        (("--checkpoint", "CHECKPOINT", "--out", "."), "exists"),
        (("--checkpoint", "CHECKPOINT", "--out", "o", "--video", "none.mp4"), "--video cannot be read"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    arguments: tuple[str, ...],
    message: str,
    checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(checkpoints["frame"]) if word == "CHECKPOINT" else word for word in arguments]
    assert cli(monkeypatch, "export", *given) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "o").exists()
