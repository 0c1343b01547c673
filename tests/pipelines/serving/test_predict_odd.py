"""Odd names and places of videos: each costs its own row, and the others go on."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.cli.main import main
from pipelines.serving.predict import AdaFocusPredictor, predict_all
from pipelines.serving.videos import find_videos
from preprocessing.media.extraction import Limits


@pytest.fixture
def predict(checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """predict(arguments) is the exit status of the verb, run in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> int:
        argv = ["adafocus", "predict", "--checkpoint", checkpoints["frame"], *arguments]
        monkeypatch.setattr(sys, "argv", [*map(str, argv)])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0)

    return run


def test_names_of_any_length_and_alphabet(
    predict: Callable[..., int],
    make_video: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    video = make_video(tmp_path / "video.mp4")
    names = ["y" * 250 + ".mp4", "two\nlines.mp4", "-x.mp4", os.fsdecode(b"caf\xe9.mp4"), "z" * 300 + ".mp4"]
    for name in names[:-1]:
        shutil.copy(video, name)
    assert predict("--json", "--explain", "out", "--", *names) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["path"] for row in rows] == names
    assert [row["error"] for row in rows] == ["", "", "", "", "missing: there is no such file"]
    assert len([*Path("out").iterdir()]) == 4 * 3


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_cannot_show_a_name(
    encoding: str,
    predict: Callable[..., int],
    make_video: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copy(make_video(tmp_path / "\u65e5\u672c.mp4"), os.fsdecode(b"caf\xe9.mp4"))
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding=encoding))
    assert predict("\u65e5\u672c.mp4", os.fsdecode(b"caf\xe9.mp4")) == 0
    text = shown.getvalue().decode(encoding)
    assert text.count("GFLOPs") == 2 and r"caf\xe9.mp4" in text and (r"\u65e5" in text or "\u65e5" in text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("",), "a video's name is empty"),
        (("s3://bucket/a.mp4",), "s3://bucket/a.mp4 is an address"),
        (("https://me:secret@host/a.mp4",), "https://host/a.mp4 is an address"),
        (("a.mp4", "--explain", "."), "--explain . names no file"),
        (("a.mp4", "--explain", "a.mp4/x"), "a.mp4: File exists"),
        (("a.mp4", "--top", "-1"), "Invalid value for '--top'"),
        (("a.mp4", "--decoders", "-3"), "Invalid value for '--decoders'"),
        (("a.mp4", "--timeout", "nan"), "Invalid value for '--timeout'"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_read(
    arguments: tuple[str, ...], message: str, predict: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.mp4").write_text("")
    assert predict(*arguments) == 2
    out, err = capsys.readouterr()
    assert message in err and not out


def test_a_pipe_is_no_file_and_no_time_is_spent_on_it(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    model = AdaFocusPredictor.from_folder(checkpoints["frame"])
    started = time.monotonic()
    outcomes = predict_all(model, [tmp_path / "pipe.mp4", Path("/dev/zero"), tmp_path / "none"], 1)
    words = ["it is no file", "it is no file", "there is no such file"]
    assert [outcome.error for outcome in outcomes] == [f"missing: {each}" for each in words]
    assert time.monotonic() - started < 5


def test_a_limit_of_time_is_that_of_all_passes_together(
    checkpoints: dict[str, Path], tmp_path: Path, run_ffmpeg: Callable[..., None]
) -> None:
    path = tmp_path / "long.mkv"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=640x480:d=20:r=60", "-c:v", "mpeg4", path)
    model = AdaFocusPredictor(checkpoints["frame"], limits=Limits(timeout_s=0.1))
    started = time.monotonic()
    (outcome,) = predict_all(model, [path], 1)
    assert outcome.error.startswith("timeout: no end after 0.1 s and ") and time.monotonic() - started < 1


def test_what_a_system_leaves_in_a_folder_is_no_video(make_video: Callable[..., Path], tmp_path: Path) -> None:
    video = make_video(tmp_path / "a" / "1.mp4")
    (tmp_path / "a" / "._1.mp4").write_bytes(b"\0\5\26\7")
    (tmp_path / "a" / ".ipynb_checkpoints").mkdir()
    shutil.copy(video, tmp_path / "a" / ".ipynb_checkpoints" / "1-checkpoint.mp4")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    assert find_videos([str(tmp_path)]) == [video]
