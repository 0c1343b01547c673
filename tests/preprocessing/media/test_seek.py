"""A seek gives the very frames that decoding from the beginning gives, or is not made."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from preprocessing.ffmpeg.process import FFmpegReader
from preprocessing.media import frame_stream
from preprocessing.media.frame_stream import extract_frames
from preprocessing.media.sampled import sample_frames
from preprocessing.media.seeking import seek_samples
from preprocessing.schema import ExtractionSpec

SPEC = ExtractionSpec(height=40)
SECONDS, RATE = 8, 25
Run = Callable[..., None]
H264 = ("-c:v", "libx264", "-preset", "veryfast", "-g", 30)
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:keyint=30:min-keyint=30")
SOUND = {
    "b_frames.mp4": H264,
    "b_frames.mkv": H264,
    "each_frame_a_key.mp4": (*H264, "-g", 1),
    "many_keys.mkv": (*H264, "-g", 4, "-bf", 0),
    "ntsc.mp4": (*H264, "-r", "30000/1001"),
    "film.mov": (*H264, "-r", "24000/1001"),
    "fragments.mp4": (*H264, "-movflags", "frag_keyframe+empty_moov"),
    "leading_frames.mp4": X265,
    "vp9.webm": ("-c:v", "libvpx-vp9", "-g", 30, "-deadline", "realtime", "-cpu-used", 8),
    "old.mp4": ("-c:v", "mpeg4", "-g", 30, "-bf", 2),
}
"""Files that can be sought in."""
UNPROVEN = {
    "open_groups.mp4": (*H264, "-x264-params", "open-gop=1:bframes=3:keyint=30"),
    "no_keys_at_all.mkv": (*H264, "-x264-params", "intra-refresh=1:bframes=0:keyint=30"),
    "vp8.webm": ("-c:v", "libvpx", "-g", 30, "-auto-alt-ref", 1, "-lag-in-frames", 10),
    "stream.ts": ("-c:v", "mpeg2video", "-g", 30, "-bf", 2),
    "old.avi": ("-c:v", "mpeg4", "-g", 30),
    "stutter.mkv": (*H264, "-bf", 0, "-bsf:v", "setts=ts=floor(N/3)*3"),
}
"""Files that may have to be decoded from the beginning; their frames have to be the same ones all the same."""


def frames_of(path: Path, start_s: float | None = None, end_s: float | None = None) -> tuple[list[bytes], str]:
    with extract_frames(path, SPEC, start_s=start_s, end_s=end_s) as stream:
        jpegs = list(stream)
    return jpegs, stream.result.status


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, run_ffmpeg: Run) -> Callable[[str], Path]:
    """make(name) is the file of that name,."""
    folder = tmp_path_factory.mktemp("seek")
    source = folder / "source.mkv"
    picture = f"testsrc2=s=64x48:d={SECONDS}:r={RATE},noise=alls=20:allf=t"
    run_ffmpeg("-f", "lavfi", "-i", picture, "-c:v", "ffv1", source)

    def file(name: str) -> Path:
        path = folder / name
        if not path.exists():
            options = (SOUND | UNPROVEN)[name]
            run_ffmpeg("-i", source, "-pix_fmt", "yuv420p", *options, path)
        return path

    return file


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that are started."""
    started: list[list[str]] = []
    real = FFmpegReader.__init__
    monkeypatch.setattr(
        FFmpegReader,
        "__init__",
        lambda self, argv, *rest, **named: started.append(argv) or real(self, argv, *rest, **named),
    )
    return started


def check_ranges(path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    numbers = random.Random(path.name)
    for _ in range(count):
        start_s = round(numbers.uniform(1, SECONDS - 1), numbers.choice((0, 1, 3)))
        end_s = numbers.choice((None, start_s + 0.5))
        found = frames_of(path, start_s, end_s)
        with monkeypatch.context() as patch:
            patch.setattr(frame_stream, "LEAST_START_S", float("inf"))
            assert found == frames_of(path, start_s, end_s), (path.name, start_s, end_s)
        assert found[1] == "ok"


@pytest.mark.parametrize("name", SOUND)
def test_a_range_is_sought(
    name: str, make: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, commands: list[list[str]]
) -> None:
    check_ranges(make(name), monkeypatch, 3)
    starts = [argv for argv in commands if "-ss" in argv or any("trim=" in word for word in argv)]
    assert sum("-ss" not in argv for argv in starts) == 3, "not every range was sought"


@pytest.mark.parametrize("name", UNPROVEN)
def test_what_cannot_be_proved_is_decoded_from_the_beginning(
    name: str, make: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_ranges(make(name), monkeypatch, 2)


@pytest.mark.parametrize("name", [*SOUND, *UNPROVEN])
def test_frames_by_their_numbers(
    name: str, make: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, commands: list[list[str]]
) -> None:
    monkeypatch.setattr(seek_samples, "_START_COSTS", 0)
    path = make(name)
    jpegs, _ = frames_of(path)
    commands.clear()
    wanted = [29, 30, 31, 100, len(jpegs) - 1]
    clip = sample_frames(path, SPEC, lambda count: wanted if count > 100 else [0], threads=2)
    assert clip.result.status == "ok" and len(clip) == len(jpegs)
    assert clip.jpegs == {number: jpegs[number] for number in wanted}
    if name in SOUND:
        assert sum("-ss" in argv for argv in commands) >= len(commands) - 1 > 0


def test_a_file_that_lies_about_its_keys_is_noticed(
    make: Callable[[str], Path], tmp_path: Path, run_ffmpeg: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every packet is marked as a key frame."""
    monkeypatch.setattr(seek_samples, "_START_COSTS", 0)
    path = tmp_path / "lies.mkv"
    run_ffmpeg("-i", make("b_frames.mp4"), "-c", "copy", path)
    data = bytearray(path.read_bytes())
    at, marked = 0, 0
    while (at := data.find(b"\xa3", at + 1)) > 0:  # a simple block: size, track 1, time, flags
        for length in (1, 2, 3):
            if data[at + 1] >> (8 - length) == 1 and data[at + 1 + length] == 0x81 and data[at + 4 + length] == 0:
                data[at + 4 + length], marked = 0x80, marked + 1
    assert marked > 100
    path.write_bytes(data)
    jpegs, _ = frames_of(path)
    clip = sample_frames(path, SPEC, lambda count: [50, 120], threads=2)
    assert clip.jpegs == {50: jpegs[50], 120: jpegs[120]}
    assert frames_of(path, 3.3, 4.0)[0] == frames_of(make("b_frames.mp4"), 3.3, 4.0)[0]


def test_damage_in_a_range_is_found_as_without_a_seek(
    make: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray(make("b_frames.mkv").read_bytes())
    # Inside one packet: where whole packets are lost, ffmpeg may or may not read on to what it would complain of.
    inside = data.find(b"\xa3", len(data) * 6 // 10) + 60
    data[inside : inside + 80] = b"\x55" * 80
    path = tmp_path / "damaged.mkv"
    path.write_bytes(data)
    found = frames_of(path, 4, 7)
    monkeypatch.setattr(frame_stream, "LEAST_START_S", float("inf"))
    assert found == frames_of(path, 4, 7) and found[1] == "damaged"
