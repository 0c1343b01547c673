"""`adafocus predict` as a user meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.terminal import terminal
from pipelines.cli.main import main
from pipelines.serving.predict import AdaFocusPredictor, predict_all
from pipelines.serving.videos import find_videos
from pipelines.tracking.client import Tracker
from preprocessing.schema import UserError


def cli(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["adafocus", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@pytest.fixture
def videos(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    folder = tmp_path / "videos"
    for number in range(3):
        make_video(folder / f"clip {number}.mp4", count=10 + number, seed=number)
    (folder / "sub").mkdir()
    (folder / "sub" / "broken.avi").write_bytes(b"no video")
    (folder / "notes.txt").write_text("not a video either")
    return folder


def test_a_folder_of_videos_with_a_broken_one(
    videos: Path, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoints["frame"]
    assert cli(monkeypatch, "predict", videos, videos / "none.mp4", "--checkpoint", folder, "--json", "--top", 2) == 1
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [Path(row["path"]).name for row in rows] == [
        *(f"clip {number}.mp4" for number in range(3)),
        "broken.avi",
        "none.mp4",
    ]
    assert [row["error"].split(":")[0] for row in rows] == ["", "", "", "probe_failed", "missing"]
    assert "2 of 5 videos could not be read" in err
    model = AdaFocusPredictor.from_folder(folder)
    for row in rows[:3]:
        found = model.predict(row["path"])
        assert [(item["class"], item["probability"]) for item in row["top"]] == found.top(2)
        assert row["corners"] == found.corners_T2.tolist() and set(row["ms"]) == set(found.times_ms)
    assert [row["frames"] for row in rows[:3]] == [10, 11, 12]


def test_text_of_one_video(
    videos: Path, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern = str(videos / "clip [0-1].mp4")
    assert cli(monkeypatch, "predict", pattern, "--checkpoint", checkpoints["clip"], "--patches", "centre") == 0
    out = capsys.readouterr().out
    assert out.count("GFLOPs") == 2 and "clip 0.mp4  (10 frames)" in out and out.count("%") >= 10
    assert "policy 0," in out  # nothing was spent on it


def test_by_run_of_mlflow(checkpoints: dict[str, Path], videos: Path) -> None:
    source = checkpoints["frame"]
    runs = source.parent
    run = Tracker(runs, f"sqlite:///{runs}/mlflow.db").run("synthetic", "trial", "mine", sweep="", trial="mine")
    run.set_result(source, "", "top1")
    run.log_metrics({"finetune/val_top1": 50.0})
    path = videos / "clip 0.mp4"
    wanted = AdaFocusPredictor.from_folder(source).predict(path).top()
    for name in ("mine", run.run_id):
        assert AdaFocusPredictor.from_run(name, runs).predict(path).top() == wanted
    with pytest.raises(UserError, match="no run 'other'"):
        AdaFocusPredictor.from_run("other", runs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x.mp4",), "give exactly one of --run, --sweep and --checkpoint"),
        (("empty", "--checkpoint", "c"), "there is no video in empty"),
        (("*.mp4", "--checkpoint", "c"), "there is no video in *.mp4"),
        (("x.mp4", "--checkpoint", "none"), "none holds no finished checkpoint"),
        (("x.mp4", "--checkpoint", "c", "--patches", "left"), "--patches is 'left'"),
        (("x.mp4", "--checkpoint", "c", "--precision", "int8"), "--precision is 'int8'"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert cli(monkeypatch, "predict", *arguments) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.strip().splitlines()) == 1


def test_inputs_are_found_once_each(videos: Path, tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    (frames / "1.jpg").write_bytes(b"")
    found = find_videos([str(videos), str(videos / "clip 0.mp4"), str(frames)])
    assert [path.name for path in found] == ["clip 0.mp4", "clip 1.mp4", "clip 2.mp4", "broken.avi", "frames"]


def test_decoding_runs_ahead_but_not_far(videos: Path, checkpoints: dict[str, Path]) -> None:
    model = AdaFocusPredictor.from_folder(checkpoints["frame"])
    read: list[Path] = []
    real = model.read
    model.read = lambda path, *rest: read.append(path) or real(path, *rest)
    outcomes = predict_all(model, [videos / "clip 0.mp4"] * 20, decoders=2)
    assert not next(outcomes).error
    time.sleep(1.0)
    assert 4 <= len(read) <= 5
    outcomes.close()
    assert len(read) <= 7


def test_ctrl_c_stops_ffmpeg_too(tmp_path: Path, checkpoints: dict[str, Path], run_ffmpeg: Callable[..., None]) -> None:
    path = tmp_path / "long.mkv"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=640x480:d=30:r=60", "-c:v", "mpeg4", path)
    argv = [sys.executable, "-m", "pipelines.cli", "predict", str(path), "--checkpoint"]
    process = subprocess.Popen(
        [*argv, str(checkpoints["frame"])],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )

    def running() -> bool:
        names = (Path(f"/proc/{pid}/cmdline") for pid in os.listdir("/proc") if pid.isdigit())
        return any(b"select=" in data and str(path).encode() in data for data in map(read_or_empty, names))

    deadline = time.monotonic() + 60
    while not running() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130 and "Traceback" not in err and "interrupted" in err
    assert not running()


def read_or_empty(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_answers_stand_above_the_bar_of_a_terminal(
    checkpoints: dict[str, Path], make_video: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        make_video(tmp_path / f"{number}.mp4", seed=number)
    with terminal() as shown:
        monkeypatch.setattr(sys, "stdout", shown.stream)
        monkeypatch.setattr(sys, "stderr", shown.stream)
        assert cli(monkeypatch, "predict", tmp_path, "--checkpoint", checkpoints["frame"]) == 0
    lines = [line.strip() for line in shown.text.replace("\r", "\n").splitlines()]
    assert sum("3/3 videos" in line for line in lines) >= 1
    assert [line.split()[0] for line in lines if line.endswith("(12 frames)")] == [
        str(tmp_path / f"{number}.mp4") for number in range(3)
    ]
