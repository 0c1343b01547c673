"""Frames are numbered, not timed: whatever a file's clock does, every frame that decodes is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from preprocessing.media.extraction import Extraction
from preprocessing.media.frame_stream import extract_frames
from preprocessing.media.sampled import sample_frames
from preprocessing.schema import ExtractionSpec

SPEC = ExtractionSpec(height=48)
COUNT, FPS = 24, 10
CLOCKS = {
    "repeated": "0",
    "backward": "if(gt(N,11),PTS-10*1/(10*TB),PTS)",
    "negative": "PTS-2/TB",
    "late": "PTS+100/TB",
    "jump": "if(gt(N,11),PTS+3600/TB,PTS)",
    "stutter": "floor(N/3)/TB",
}
"""Time stamps of packet N, which follow each other by a tenth of a second in a sound file."""


def frames_of(path: Path, spec: ExtractionSpec = SPEC) -> tuple[list[bytes], Extraction]:
    with extract_frames(path, spec) as stream:
        jpegs = list(stream)
    return jpegs, stream.result


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, run_ffmpeg: Callable[..., None]) -> Path:
    path = tmp_path_factory.mktemp("clocks") / "sound.mkv"
    run_ffmpeg("-f", "lavfi", "-i", f"testsrc2=s=64x48:d={COUNT / FPS}:r={FPS}", "-c:v", "mpeg4", path)
    return path


@pytest.mark.parametrize(
    ("clock", "container"),
    [
        (clock, container)
        for clock in CLOCKS
        for container in ("mkv", "mp4")
        if (clock, container) != ("negative", "mp4")
    ],
)  # what is before 0 in an .mp4 file is cut away by the list of edits, on purpose
def test_no_clock_loses_a_frame(
    clock: str, container: str, sound: Path, tmp_path: Path, run_ffmpeg: Callable[..., None]
) -> None:
    path = tmp_path / f"{clock}.{container}"
    run_ffmpeg("-i", sound, "-c", "copy", "-bsf:v", f"setts=ts='{CLOCKS[clock]}'", "-avoid_negative_ts", 0, path)
    expected, _ = frames_of(sound)
    jpegs, result = frames_of(path)
    assert (jpegs, result.status, result.error) == (expected, "ok", "")
    assert result.fps is None or 1 <= result.fps <= 240
    sampled = sample_frames(path, SPEC, lambda count: [0, count // 2, count - 1])
    assert sampled.jpegs == {0: expected[0], COUNT // 2: expected[COUNT // 2], COUNT - 1: expected[-1]}


def test_a_file_that_hides_all_of_its_frames_is_told_in_words(
    sound: Path, tmp_path: Path, run_ffmpeg: Callable[..., None]
) -> None:
    path = tmp_path / "hidden.mp4"
    run_ffmpeg("-i", sound, "-c", "copy", "-bsf:v", "setts=ts=PTS-9/TB", "-avoid_negative_ts", 0, path)
    _, result = frames_of(path)
    expected = ("decode_failed", "no frame could be decoded, or its list of edits hides them all")
    assert (result.status, result.error) == expected


@pytest.mark.parametrize("container", ["ts", "mpg"])
def test_a_stream_that_states_no_length_is_not_damaged_where_its_clock_jumps(
    container: str, sound: Path, tmp_path: Path, run_ffmpeg: Callable[..., None]
) -> None:
    path = tmp_path / f"jump.{container}"
    codec = ["-c:v", "mpeg2video", "-r", 25, "-bf", 0, "-bsf:v", f"setts=ts='{CLOCKS['jump']}'"]
    run_ffmpeg("-i", sound, *codec, path)
    plain = tmp_path / f"plain.{container}"
    run_ffmpeg("-i", sound, *codec[:-2], plain)
    jpegs, result = frames_of(path)
    assert (result.status, result.error) == ("ok", "") and jpegs == frames_of(plain)[0]


@pytest.mark.parametrize("start_s", [0, 100])
def test_a_file_that_ends_before_its_header_says_is_still_damaged(
    start_s: int, sound: Path, tmp_path: Path, run_ffmpeg: Callable[..., None]
) -> None:
    whole, cut = tmp_path / "whole.mkv", tmp_path / "cut.mkv"
    shift = f"setts=ts=10*PTS+{start_s}/TB"  # 24 seconds
    run_ffmpeg("-i", sound, "-c", "copy", "-bsf:v", shift, "-cluster_time_limit", 1, whole)
    assert frames_of(whole)[1].status == "ok"
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) * 6 // 10])
    _, result = frames_of(cut)
    assert result.status == "damaged" and result.error


def test_frames_are_those_of_the_plain_command_bit_for_bit(
    sound: Path, tmp_path: Path, run_ffmpeg: Callable[..., None]
) -> None:
    """What was packed by earlier versions, which had no more than this command, stays the same."""
    kinds = {"a.mp4": ["-c:v", "libx264"], "b.webm": ["-c:v", "libvpx-vp9"], "c.ts": ["-c:v", "mpeg2video"]}
    kinds |= {"d.avi": ["-c:v", "mpeg4"], "e.mov": ["-c:v", "qtrle"]}
    kinds |= {"f.mkv": ["-c:v", "ffv1", "-vf", "scale=67:49,setsar=1280/1281"]}
    for name, encoder in kinds.items():
        path, plain = tmp_path / name, tmp_path / f"{name}.jpgs"
        run_ffmpeg("-i", sound, *encoder, "-pix_fmt", "rgb24" if name == "e.mov" else "yuv420p", path)
        options = ["-map", "0:V:0", "-vf", "scale=-1:40", "-q:v", 2, "-fps_mode", "passthrough", "-c:v", "mjpeg"]
        run_ffmpeg("-i", path, *options, "-f", "image2pipe", plain)
        jpegs, result = frames_of(path, ExtractionSpec(height=40))
        assert (b"".join(jpegs) == plain.read_bytes(), result.status, len(jpegs)) == (True, "ok", COUNT), name
