"""What is drawn is what was predicted."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adafocus.inference.predictor import AdaFocusPredictor
from pipelines.cli.main import main
from pipelines.visualize.drawing import BACKGROUND, GREEN, YELLOW, font, shorten
from pipelines.visualize.explain import explain_video
from pipelines.visualize.explain.explain import explain
from pipelines.visualize.explain.explain_page import PageSection, PredictedClip, page
from pipelines.visualize.explain.explain_video import LONGEST_SIDE, WIDTH, explained_frames
from pipelines.visualize.explain.explained_clip import ExplainedClip
from pipelines.visualize.known_boxes import KnownBoxes
from pipelines.visualize.patch_strips import CELL, draw_strip
from preprocessing.ffmpeg.encode import encode_video
from preprocessing.media.frame_stream import extract_frames
from preprocessing.schema import ExtractionSpec, UserError

HOSTILE = "</script><img src=x onerror=alert(1)>.mp4"


def data_of(html: str) -> dict:
    found = re.search(r"^const DATA = (.*);$", html, re.MULTILINE)
    assert found
    return json.loads(found[1])


@pytest.mark.parametrize("regime", ["frame", "clip"])
def test_the_three_files(
    regime: str, checkpoints: dict[str, Path], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    model = AdaFocusPredictor.from_folder(checkpoints[regime])
    path = make_video(tmp_path / "a.mp4", count=13, height=64, width=100)
    clip = model.read(path)
    prediction = model.predict_frames(clip)
    png, mp4, html = explain(model, clip, prediction, tmp_path / "new" / "out")
    frames = len(clip.focus_TCHW)
    assert Image.open(png).width == frames * (CELL + 8) + 8
    with extract_frames(mp4, ExtractionSpec(height=100)) as stream:
        assert len(list(stream)) == 13 and stream.result.status == "ok"
    (drawn,) = data_of(html.read_text())["sections"][0]["clips"]
    assert [shown[:2] for shown in drawn["shown"]] == prediction.corners_T2.tolist() and drawn[
        "index"
    ] == clip.index_T.tolist()
    assert len(drawn["frames"]) == len(drawn["patches"]) == len(drawn["best"]) == frames
    first = prediction.class_names.index(drawn["classes"][0])
    assert np.allclose(drawn["curves"][0], prediction.probability[:, first], atol=1e-4)
    assert prediction.map_Skk is not None and np.allclose(drawn["maps"], prediction.map_Skk, atol=1e-4)
    assert not re.search(r"(src|href)=|https?://(?!www.w3.org/2000/svg)", html.read_text())  # needs nothing else


def test_names_in_a_page_are_data(
    checkpoints: dict[str, Path], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    model = AdaFocusPredictor.from_folder(checkpoints["frame"])
    clip = model.read(make_video(tmp_path / "a.mp4"))
    object.__setattr__(clip, "name", HOSTILE.replace("/", ""))
    text = page(model, [PageSection("", [PredictedClip(clip, model.predict_frames(clip))])], HOSTILE)
    assert "<img" not in text and text.count("</script>") == 1
    assert data_of(text)["sections"][0]["clips"][0]["title"] == HOSTILE.replace("/", "")


def test_the_box_is_where_the_patch_is() -> None:
    frames_TCHW = torch.full((2, 3, 40, 40), 90, dtype=torch.uint8)
    corners_T2 = torch.tensor([[0, 24], [10, 10]])
    frames_TCHW[0, :, :16, 24:] = 200
    probability_TK = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    clip = ExplainedClip("a", ("x", "y"), frames_TCHW, np.array([3, 9]), corners_T2, probability_TK, 16)
    image = np.asarray(draw_strip(clip)).astype(int)
    left, top, scale = 8, 44, CELL / 40
    at = (round(top + 8 * scale), round(left + 24 * scale))  # the middle of the box's left edge
    assert tuple(image[at]) == GREEN
    patch = image[top + CELL + 4 + 20 : top + 2 * CELL - 20, left + 20 : left + CELL - 20]
    assert (patch == 200).all()  # the zoomed patch is all bright
    assert clip.likeliest[0] == ("y", 0.75) and clip.colour("y") != GREEN
    known = ExplainedClip("a", ("x", "y"), frames_TCHW, None, corners_T2, probability_TK, 16, truth="y")
    assert known.colour("y") == GREEN and known.colour("x") != GREEN


def test_known_boxes_are_thin_and_where_the_object_is(
    checkpoints: dict[str, Path], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    model = AdaFocusPredictor.from_folder(checkpoints["frame"], patches="centre")
    path = make_video(tmp_path / "a.mp4", count=12, height=40, width=80)  # the view is its middle 40 columns
    (tmp_path / "boxes.csv").write_text("path,frame,x,y,w,h\n" + "".join(f"a.mp4,{n},24,4,6,8\n" for n in range(12)))
    clip = KnownBoxes(tmp_path / "boxes.csv").add(model, model.read(path))
    assert clip.boxes_T4 is not None and clip.boxes_T4[0].tolist() == pytest.approx([4, 4, 12, 10])
    prediction = model.predict_frames(clip)
    explained = ExplainedClip.of_prediction(model, clip, prediction)
    strip, scale = np.asarray(draw_strip(explained)), CELL / 40
    assert tuple(strip[round(44 + 8 * scale), round(8 + 4 * scale)]) == YELLOW
    video, scale = list(explained_frames(model, clip, prediction))[-1], WIDTH // 80
    assert tuple(video[8 * scale, 24 * scale]) == YELLOW
    (drawn,) = data_of(page(model, [PageSection("", [PredictedClip(clip, prediction)])], ""))["sections"][0]["clips"]
    assert drawn["boxes"][0] == [4, 4, 12, 10]
    unknown = ExplainedClip.of_prediction(model, model.read(path), prediction)
    assert unknown.box(0) is None
    with pytest.raises(UserError, match="no such file"):
        KnownBoxes(tmp_path / "none.csv")


def test_in_the_video_what_the_networks_do_not_see_is_dark(
    checkpoints: dict[str, Path], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    model = AdaFocusPredictor.from_folder(checkpoints["frame"], patches="centre")
    path = make_video(tmp_path / "a.mp4", count=12, height=40, width=80)  # the view is its middle 40 columns
    clip = model.read(path)
    images = list(explained_frames(model, clip, model.predict_frames(clip)))
    assert len(images) == 12 and images[0].shape == (WIDTH // 2 + 168, WIDTH, 3)
    scale = WIDTH // 80
    with extract_frames(path, model.spec) as stream:
        plain = [np.asarray(Image.open(io.BytesIO(jpeg))).astype(int) for jpeg in stream]
    last, row = images[-1].astype(int), 10 * scale
    assert abs(last[row, 40 * scale].mean() - plain[-1][10, 40].mean()) < 6
    assert abs(last[row, 6 * scale].mean() - 0.4 * plain[-1][10, 6].mean()) < 6
    edge = (20 * scale, (20 + 12) * scale)  # of the central patch
    assert tuple(images[-1][edge]) == GREEN and tuple(images[0][edge]) != GREEN  # before the first look there is none
    assert tuple(last[-1, 0]) == BACKGROUND


@pytest.mark.parametrize("size", [(12, 240), (2400, 12), (4, 4)])
def test_videos_of_absurd_shapes_are_drawn_within_bounds(
    size: tuple[int, int], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    width, height = size
    encode_video(tmp_path / "a.mp4", [np.full((height, width, 3), 10 * n, np.uint8) for n in range(4)], 10)
    model = AdaFocusPredictor.from_folder(checkpoints["frame"])
    clip = model.read(tmp_path / "a.mp4")
    images = list(explained_frames(model, clip, model.predict_frames(clip)))
    assert len(images) == 4 and len({image.shape for image in images}) == 1
    assert images[0].shape[1] >= WIDTH and max(images[0].shape) <= LONGEST_SIDE + 168
    assert not images[0].shape[0] % 2 and not images[0].shape[1] % 2


def test_long_names_are_cut() -> None:
    face = font(12)
    short = shorten("a very long name of a class that nobody can read", 80, face)
    assert short.endswith("…") and face.getlength(short) <= 80 and shorten("a", 80, face) == "a"


def test_one_odd_video_does_not_end_the_others(
    checkpoints: dict[str, Path],
    make_video: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    encode_video(odd, [np.full((240, 12, 3), 10 * n, np.uint8) for n in range(4)], 10)
    broken = make_video(tmp_path / "b.mp4")
    draw = explain_video._FramePainter.paint

    def fail(painter: explain_video._FramePainter, image: Image.Image, number: int) -> np.ndarray:
        if painter._prediction.name == str(broken):
            raise ValueError("this one cannot be drawn")
        return draw(painter, image, number)

    monkeypatch.setattr(explain_video._FramePainter, "paint", fail)
    paths = [odd, broken, make_video(tmp_path / "c.mp4")]
    argv = ["predict", *paths, "--checkpoint", checkpoints["frame"], "--explain", tmp_path / "out", "--json"]
    monkeypatch.setattr(sys, "argv", ["adafocus", *map(str, argv)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1 and len(capsys.readouterr().out.splitlines()) == 3
    assert "b.mp4 cannot be explained: ValueError: this one cannot be drawn" in caplog.text
    names = sorted(path.name for path in (tmp_path / "out").glob("*.html"))
    assert names == [os.fsdecode(b"0000-caf\xe9.html"), "0002-c.html"]
    assert data_of((tmp_path / "out" / names[0]).read_text())["title"].startswith("caf\\xe9.mp4")


def test_several_videos_are_explained_into_a_folder(
    checkpoints: dict[str, Path],
    make_video: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = [make_video(tmp_path / folder / "a.mp4", seed=seed) for seed, folder in enumerate(("x", "y"))]
    argv = ["predict", *paths, "--checkpoint", checkpoints["frame"], "--explain", tmp_path / "out", "--json"]
    monkeypatch.setattr(sys, "argv", ["adafocus", *map(str, argv)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code and len(capsys.readouterr().out.splitlines()) == 2
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"{number:04d}-a.{kind}" for number in (0, 1) for kind in ("png", "mp4", "html")}
