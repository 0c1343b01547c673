"""Sampled frames are the very bytes that packing writes, whatever the file is like."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from preprocessing.ffmpeg.process import FFmpegReader
from preprocessing.media import sampled
from preprocessing.media.extraction import Extraction
from preprocessing.media.frame_stream import extract_frames
from preprocessing.media.sampled import sample_frames
from preprocessing.schema import ExtractionSpec

SPEC = ExtractionSpec(height=40)
Run = Callable[..., None]


def rule(count: int) -> list[int]:
    """Four frames, as an evaluation samples them."""
    return sorted({int(count / 8 + count / 4 * step) for step in range(4)})


def test_a_source_that_grows_while_it_is_read_comes_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a folder that a download fills."""
    passes = 0

    class Growing:
        result = Extraction("ok", "", 0, 10.0, 40, 40, 1.0, None, 0)

        def __enter__(self) -> Growing:
            nonlocal passes
            passes += 1
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __iter__(self) -> Iterator[bytes]:
            return iter([b"jpeg"] * (10 + passes))

    monkeypatch.setattr(sampled, "open_frames", lambda *_, **options: Growing())
    found = sample_frames(tmp_path, SPEC, rule).result
    assert found.status == "decode_failed" and "changes" in found.error and passes < 5


def check(path: Path, spec: ExtractionSpec = SPEC) -> None:
    with extract_frames(path, spec) as stream:
        jpegs = list(stream)
    clip = sample_frames(path, spec, rule)
    wanted, found = stream.result, clip.result
    assert (found.status, found.num_frames, found.fps) == (wanted.status, wanted.num_frames, wanted.fps), found
    assert (found.height, found.width, found.duration_s) == (wanted.height, wanted.width, wanted.duration_s)
    assert len(clip) == len(jpegs) and clip.jpegs == {index: jpegs[index] for index in rule(len(jpegs))}


def make(run_ffmpeg: Run, path: Path, *arguments: object, size: str = "64x48") -> Path:
    run_ffmpeg("-f", "lavfi", "-i", f"testsrc2=s={size}:d=3:r=10", *arguments, path)
    return path


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        ExtractionSpec(height=40, fps=4),
        ExtractionSpec(height=40, max_frames=11),
        ExtractionSpec(height=40, profile="paper"),
        ExtractionSpec(height=40, quality=9, fps=25, max_frames=40),
    ],
    ids=str,
)
def test_every_way_of_packing(spec: ExtractionSpec, tmp_path: Path, run_ffmpeg: Run) -> None:
    check(make(run_ffmpeg, tmp_path / "a.mp4", "-c:v", "libx264"), spec)


def test_damaged_rotated_and_variable_files(tmp_path: Path, run_ffmpeg: Run) -> None:
    whole = make(run_ffmpeg, tmp_path / "whole.ts", "-c:v", "libx264", "-g", 8)
    data = bytearray(whole.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    damaged = tmp_path / "damaged.ts"
    damaged.write_bytes(data)
    check(damaged)
    assert sample_frames(damaged, SPEC, rule).result.status == "damaged"
    cut = tmp_path / "cut.ts"
    cut.write_bytes(whole.read_bytes()[: len(data) * 2 // 3])
    check(cut)
    slow = "setpts='if(lt(N,10),N,3*N)/10/TB'"
    check(make(run_ffmpeg, tmp_path / "vfr.mkv", "-vf", slow, "-fps_mode", "vfr", "-c:v", "libx264"))
    plain = make(run_ffmpeg, tmp_path / "plain.mp4", "-c:v", "libx264")
    run_ffmpeg("-display_rotation", 90, "-i", plain, "-c", "copy", tmp_path / "rotated.mp4")
    check(tmp_path / "rotated.mp4")
    check(make(run_ffmpeg, tmp_path / "old.avi", "-c:v", "mpeg4", "-bf", 2))
    # An edit list hides the first packets: there are fewer frames than packets, and it is decoded twice.
    run_ffmpeg("-ss", 1.55, "-i", plain, "-c", "copy", tmp_path / "edited.mp4")
    check(tmp_path / "edited.mp4")


def test_a_stream_that_changes_its_size(tmp_path: Path, run_ffmpeg: Run) -> None:
    one = make(run_ffmpeg, tmp_path / "one.ts", "-c:v", "mpeg2video")
    two = make(run_ffmpeg, tmp_path / "two.ts", "-c:v", "mpeg2video", size="96x48")
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    check(both)


def test_one_decoding_is_enough_for_a_healthy_file(
    tmp_path: Path, make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(tmp_path / "a.mp4", count=20)
    commands = []
    real = FFmpegReader.__init__
    monkeypatch.setattr(
        FFmpegReader,
        "__init__",
        lambda self, argv, *rest, **named: commands.append(argv) or real(self, argv, *rest, **named),
    )
    assert len(sample_frames(path, SPEC, rule).jpegs) == 4
    assert len(commands) == 2 and "copy" in commands[0] and any("select=" in word for word in commands[1])


def test_what_has_no_frames_says_why(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    clip = sample_frames(tmp_path / "text.mp4", SPEC, rule)
    assert clip.result.status == "probe_failed" and clip.result.error and len(clip) == 0
    short = sample_frames(make_video(tmp_path / "short.mp4", count=2), SPEC, rule)
    assert short.result.status == "too_short" and short.result.error == "2 frames, 3 are the least"
    (tmp_path / "empty").mkdir()
    assert sample_frames(tmp_path / "empty", SPEC, rule).result.status == "decode_failed"


def test_a_folder_of_frames(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    with extract_frames(make_video(tmp_path / "a.mp4"), SPEC) as stream:
        jpegs = list(stream)
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, jpeg in enumerate(jpegs):
        (folder / f"{index:05d}.jpg").write_bytes(jpeg)
    clip = sample_frames(folder, SPEC, rule)
    assert len(clip) == 12 and clip.jpegs == {index: jpegs[index] for index in rule(12)}


def test_it_can_be_stopped_from_another_thread(tmp_path: Path, run_ffmpeg: Run) -> None:
    second, path = tmp_path / "second.mp4", tmp_path / "long.mp4"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=640x480:d=1:r=60", "-preset", "ultrafast", second)
    run_ffmpeg("-stream_loop", 199, "-i", second, "-c", "copy", path)
    stop = threading.Event()
    threading.Timer(0.4, stop.set).start()
    started = time.monotonic()
    spec = ExtractionSpec(height=40, fps=30)  # with a rate everything has to be decoded
    result = sample_frames(path, spec, rule, stop=stop).result
    assert result.error == "stopped" and time.monotonic() - started < 3
