"""Every kind of file ends as a correct clip or as a verdict with a reason."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from preprocessing.media.extraction import Extraction, Limits
from preprocessing.media.frame_stream import extract_frames
from preprocessing.schema import ExtractionSpec

SPEC = ExtractionSpec(height=48)


def frames_of(path: Path, spec: ExtractionSpec = SPEC, **options: object) -> tuple[list[bytes], Extraction]:
    with extract_frames(path, spec, **options) as stream:
        jpegs = list(stream)
    return jpegs, stream.result


def pixels(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)


def numbers_of(jpegs: list[bytes]) -> list[int]:
    """Which frames these are, from the brightness of their upper half."""
    return [round(pixels(jpeg)[:20].mean() / 10) for jpeg in jpegs]


@pytest.mark.parametrize(
    "name", ["a:b.mp4", "%d.mp4", "-x.mp4", 'it\'s "q".mp4', "ünï 字.mp4", "a.b.c.mp4", "a;b&c.mp4"]
)
def test_names(tmp_path: Path, make_video: Callable[..., Path], name: str) -> None:
    _, result = frames_of(make_video(tmp_path / name))
    assert (result.status, result.num_frames) == ("ok", 12)


@pytest.mark.parametrize(
    ("start_s", "end_s", "numbers"),
    [(None, None, range(24)), (0.5, 1.0, range(5, 10)), (0.45, 1.05, range(5, 11)), (2.0, None, range(20, 24))],
)
def test_time_range_is_half_open_and_exact(
    tmp_path: Path, make_video: Callable[..., Path], start_s: float, end_s: float, numbers: range
) -> None:
    jpegs, result = frames_of(make_video(tmp_path / "a.mp4", count=24), start_s=start_s, end_s=end_s)
    assert numbers_of(jpegs) == list(numbers)
    assert result.status == "ok"


def test_time_range_beyond_the_end_is_said(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    _, result = frames_of(make_video(tmp_path / "a.mp4"), start_s=30, end_s=40)
    assert result.status == "decode_failed"
    assert "starts at 30 s, the file ends at 1.2 s" in result.error


def test_fps_and_max_frames(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    path = make_video(tmp_path / "a.mp4", count=40)
    assert len(frames_of(path, ExtractionSpec(height=48, fps=5))[0]) == 20
    jpegs, result = frames_of(path, ExtractionSpec(height=48, max_frames=7))
    assert (len(jpegs), result.status) == (7, "ok")


@pytest.fixture(scope="module")
def variable_rate(
    tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path], run_ffmpeg: Callable[..., None]
) -> Path:
    """Ten frames, with gaps as if every third of thirty had been kept late."""
    folder = tmp_path_factory.mktemp("variable")
    path = folder / "vfr.mkv"
    source = make_video(folder / "cfr.mp4", count=30, fps=30)
    select = "select='lt(n,5)+gte(n,5)*not(mod(n,5))'"
    run_ffmpeg("-i", source, "-vf", select, "-fps_mode", "passthrough", "-c:v", "libx264", path)
    return path


def test_variable_rate_keeps_each_frame_once(variable_rate: Path) -> None:
    jpegs, result = frames_of(variable_rate)
    assert numbers_of(jpegs)[:6] == [0, 1, 2, 3, 4, 5]
    assert (len(jpegs), result.status) == (10, "ok")


@pytest.mark.parametrize("rate", [None, 1, 7])
@pytest.mark.parametrize("kind", ["constant", "variable"])
def test_paper_profile_is_the_reference_command_bit_for_bit(
    tmp_path: Path,
    make_video: Callable[..., Path],
    run_ffmpeg: Callable[..., None],
    variable_rate: Path,
    kind: str,
    rate: int | None,
) -> None:
    path = variable_rate
    if kind == "constant":
        path = make_video(tmp_path / "a.mp4", count=25, height=96, width=128)
    option = ["-r", rate] if rate else []
    run_ffmpeg("-nostats", "-loglevel", "0", "-i", path, "-vf", "scale=-1:360", *option, tmp_path / "image_%05d.jpg")
    expected = [file.read_bytes() for file in sorted(tmp_path.glob("image_*.jpg"))]
    jpegs, _ = frames_of(path, ExtractionSpec(fps=rate, profile="paper"))
    assert jpegs == expected


def test_rotation_is_applied(tmp_path: Path, make_video: Callable[..., Path], run_ffmpeg: Callable[..., None]) -> None:
    source, path = make_video(tmp_path / "a.mp4", height=48, width=96), tmp_path / "turned.mp4"
    run_ffmpeg("-display_rotation", "90", "-i", source, "-c", "copy", path)
    _, result = frames_of(path, ExtractionSpec(height=96))
    assert (result.height, result.width, result.num_frames) == (96, 48, 12)


@pytest.mark.parametrize(
    ("name", "encoder"),
    [
        ("ten_bit.mp4", ["-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", "log-level=none"]),
        ("alpha.mov", ["-c:v", "qtrle", "-pix_fmt", "argb"]),
        ("alpha.webm", ["-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p"]),
        ("grey.avi", ["-c:v", "ffv1", "-pix_fmt", "gray"]),
        ("old.avi", ["-c:v", "mpeg4"]),
        ("stream.ts", ["-c:v", "mpeg2video"]),
        ("flash.flv", ["-c:v", "flv"]),
    ],
)
def test_codecs(
    tmp_path: Path, make_video: Callable[..., Path], run_ffmpeg: Callable[..., None], name: str, encoder: list[str]
) -> None:
    run_ffmpeg("-i", make_video(tmp_path / "a.mp4", count=10, fps=25), *encoder, tmp_path / name)
    jpegs, result = frames_of(tmp_path / name)
    assert (result.status, result.num_frames, result.height, result.width) == ("ok", 10, 48, 64), result.error
    assert numbers_of(jpegs)[1:] == pytest.approx(list(range(1, 10)), abs=1)


def test_one_pixel(tmp_path: Path, run_ffmpeg: Callable[..., None]) -> None:
    run_ffmpeg("-f", "lavfi", "-i", "color=red:s=1x1:d=1:r=5", "-c:v", "ffv1", tmp_path / "dot.mkv")
    _, result = frames_of(tmp_path / "dot.mkv")
    assert (result.status, result.num_frames, result.height, result.width) == ("ok", 5, 48, 48)


def test_a_picture_too_wide_for_a_jpeg_fails_with_words(tmp_path: Path, run_ffmpeg: Callable[..., None]) -> None:
    run_ffmpeg("-f", "lavfi", "-i", "color=red:s=4096x2:d=1:r=5", "-c:v", "ffv1", tmp_path / "line.mkv")
    _, result = frames_of(tmp_path / "line.mkv", ExtractionSpec())
    assert result.status == "decode_failed"
    assert result.error


def broken(tmp_path: Path, make_video: Callable[..., Path], run_ffmpeg: Callable[..., None]) -> dict[str, Path]:
    good = make_video(tmp_path / "good.mp4", count=60, height=96, width=128)
    late = tmp_path / "late.mp4"  # its table of contents stands at the end
    run_ffmpeg("-i", good, "-c", "copy", late)
    data = bytearray(good.read_bytes())
    files = {"cut": data[: len(data) * 6 // 10], "cut_late": late.read_bytes()[:-2000], "empty": b"", "text": b"hi\n"}
    data[len(data) // 2 : len(data) // 2 + 3000] = b"\x55" * 3000
    files["garbage"] = data
    files["concat"] = b"ffconcat version 1.0\nfile good.mp4\n"
    files["playlist"] = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\ngood.mp4\n#EXT-X-ENDLIST\n"
    for name, content in files.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
    run_ffmpeg("-f", "lavfi", "-i", "sine=d=1", tmp_path / "sound.mp4")
    return {path.stem: path for path in tmp_path.glob("*.mp4")}


def test_broken_files(tmp_path: Path, make_video: Callable[..., Path], run_ffmpeg: Callable[..., None]) -> None:
    files = broken(tmp_path, make_video, run_ffmpeg)
    results = {name: frames_of(path)[1] for name, path in files.items()}
    assert {name: result.status for name, result in results.items()} == {
        "good": "ok",
        "late": "ok",
        "cut": "damaged",
        "garbage": "damaged",
        "cut_late": "probe_failed",
        "empty": "probe_failed",
        "text": "probe_failed",
        "concat": "probe_failed",
        "playlist": "probe_failed",
        "sound": "probe_failed",
    }
    assert all(result.error for name, result in results.items() if result.status != "ok")
    assert 0 < results["cut"].num_frames < 60
    assert results["cut"].returncode == 0  # what the exit status alone would have called a success
    assert "no video stream" in results["sound"].error


def test_missing_file_is_a_verdict(tmp_path: Path) -> None:
    assert frames_of(tmp_path / "nowhere.mp4")[1].status == "probe_failed"


def test_a_file_need_not_have_a_name_that_is_text(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    jpegs, result = frames_of(make_video(tmp_path / os.fsdecode(b"caf\xe9.mp4")))
    assert (len(jpegs), result.status) == (12, "ok")


def test_a_gif_is_a_video(tmp_path: Path, make_video: Callable[..., Path], run_ffmpeg: Callable[..., None]) -> None:
    run_ffmpeg("-i", make_video(tmp_path / "a.mp4"), tmp_path / "a.gif")
    jpegs, result = frames_of(tmp_path / "a.gif")
    assert (len(jpegs), result.status) == (12, "ok")


def test_limits(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    path = make_video(tmp_path / "a.mp4", count=200)
    jpegs, result = frames_of(path, limits=Limits(num_frames=20))
    assert (len(jpegs), result.status, result.error) == (20, "decode_failed", "more than 20 frames")
    _, result = frames_of(path, limits=Limits(num_bytes=10_000))
    assert (result.status, result.error) == ("decode_failed", "more than 10000 bytes of frames")
    started = time.monotonic()
    _, result = frames_of(path, limits=Limits(timeout_s=0.0))
    assert result.status == "timeout"
    assert time.monotonic() - started < 2


def test_memory_does_not_grow_with_the_clip(tmp_path: Path, run_ffmpeg: Callable[..., None]) -> None:
    """An hour at one frame a second: both processes together stay far below 300 MB."""
    minute, path = tmp_path / "minute.mp4", tmp_path / "hour.mp4"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x48:r=1:d=60", "-preset", "ultrafast", minute)
    run_ffmpeg("-stream_loop", 59, "-i", minute, "-c", "copy", path)
    count, peak = 0, 0
    me = psutil.Process()
    before, others = me.memory_info().rss, set(me.children())
    with extract_frames(path, ExtractionSpec(height=240)) as stream:
        for _ in stream:
            count += 1
            if count % 500 == 0:
                ffmpeg = sum(child.memory_info().rss for child in set(me.children()) - others)
                peak = max(peak, ffmpeg + me.memory_info().rss - before)
    assert (count, stream.result.status) == (3600, "ok")
    assert peak < 200e6
