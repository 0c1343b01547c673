"""The ffmpeg that is used can do the work, whatever else is on the machine."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from preprocessing.ffmpeg import process
from preprocessing.ffmpeg.process import FFmpegReader, ask_ffmpeg
from preprocessing.ffmpeg.program import VARIABLE, ffmpeg_version, find_ffmpeg, has_filters, lacking_codecs
from preprocessing.media.frame_stream import extract_frames
from preprocessing.schema import ExtractionSpec, UserError

OLD = """case "$*" in *fps_mode*) echo "Unrecognized option 'fps_mode'." >&2; exit 1;; esac
echo "ffmpeg version 4.2.7 Copyright (c) 2000-2022 the FFmpeg developers"
"""
STATIC = find_ffmpeg()


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """program(script) is an ffmpeg on PATH that is a shell script."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv(VARIABLE, raising=False)

    def make(script: str) -> Path:
        path = folder / "ffmpeg"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    for each in (find_ffmpeg, lacking_codecs):
        each.cache_clear()
    yield make
    for each in (find_ffmpeg, lacking_codecs):
        each.cache_clear()


def test_the_one_on_path_is_taken_if_it_can_do_the_work(program: Callable[[str], Path]) -> None:
    assert find_ffmpeg() == STATIC
    find_ffmpeg.cache_clear()
    good = program(f'exec "{STATIC}" "$@"')
    assert find_ffmpeg() == str(good)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (OLD, "version 4.2.7: Unrecognized option 'fps_mode'."),
        ("exit 0", "version unknown"),
        ("exit 127", "version"),
        (f'echo "loading modules"; exec "{STATIC}" "$@"', "it writes something before its output: 'loading modules'"),
        (f'exec "{STATIC}" "$@" | sed "/ h264 /s/^ D/ ./; / hevc /d"', "cannot decode H.264, cannot decode H.265"),
        (f'exec "{STATIC}" "$@" | sed "s/libx264//g"', "cannot write .mp4 files (it has no libx264)"),
    ],
    ids=["old", "silent", "broken", "talkative", "without decoders", "without an encoder"],
)
def test_one_that_cannot_is_passed_over_and_said(
    program: Callable[[str], Path], script: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    unfit = program(script)
    assert find_ffmpeg() == STATIC
    assert str(unfit) in caplog.text and why in caplog.text and STATIC in caplog.text


def test_the_variable_decides_and_is_checked(program: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    old = program(OLD)
    monkeypatch.setenv(VARIABLE, STATIC)
    assert find_ffmpeg() == STATIC
    for wrong, why in ((str(old), "4.2.7"), ("/nowhere/ffmpeg", "does not run"), (str(old.parent), "it is a folder")):
        monkeypatch.setenv(VARIABLE, wrong)
        find_ffmpeg.cache_clear()
        with pytest.raises(UserError, match=f"{VARIABLE} names {wrong}, which cannot be used: .*{why}"):
            find_ffmpeg()


def test_the_variable_may_be_a_name_or_a_relative_path(
    program: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers of Ray have another working folder."""
    good = program(f'exec "{STATIC}" "$@"')
    monkeypatch.chdir(good.parent.parent)
    monkeypatch.setenv("HOME", str(good.parent))
    for named in ("ffmpeg", "bin/ffmpeg", "./bin/../bin/ffmpeg", "~/ffmpeg"):
        monkeypatch.setenv(VARIABLE, named)
        find_ffmpeg.cache_clear()
        assert os.path.isabs(find_ffmpeg()) and os.path.samefile(find_ffmpeg(), good)


def test_one_without_a_decoder_is_better_than_none(
    program: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    poor = program(f'exec "{STATIC}" "$@" | sed "/ hevc /d"')
    monkeypatch.setattr("preprocessing.ffmpeg.program._candidates", lambda: iter([str(poor)]))
    assert find_ffmpeg() == str(poor) and f"{poor} cannot decode H.265" in caplog.text
    caplog.clear()
    find_ffmpeg.cache_clear()
    monkeypatch.setenv(VARIABLE, str(poor))
    assert find_ffmpeg() == str(poor) and "cannot decode H.265" in caplog.text


def test_colours_that_the_environment_asks_for_are_not_in_the_log(
    make_video: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AV_LOG_FORCE_COLOR", "1")
    with extract_frames(make_video(tmp_path / "a.mp4"), ExtractionSpec(height=48)) as stream:
        assert len(list(stream)) == 12
    assert stream.result.status == "ok"


def test_a_script_around_ffmpeg_ends_with_all_that_it_has_started(
    program: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = program(f"sleep 20 & echo $! > {tmp_path}/pid; wait")
    monkeypatch.setattr(process, "_ANSWER_S", 0.5)
    with pytest.raises(OSError, match=r"no answer within 0\.5 s"):
        ask_ffmpeg([str(script)])
    assert _has_ended(int((tmp_path / "pid").read_text()))
    with FFmpegReader([str(script)], 0.5) as reader:
        assert not [*reader.chunks()] and reader.ended_by == "timeout"
    assert _has_ended(int((tmp_path / "pid").read_text()))


def _has_ended(pid: int) -> bool:
    """A process that nobody waits for stays as a zombie, where nothing adopts it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        found = psutil.Process(pid)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if found.status() == psutil.STATUS_ZOMBIE:
                return True
            time.sleep(0.02)
        return False
    return True


def test_none_is_an_error_that_says_what_was_tried(
    program: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = program(OLD)
    monkeypatch.setattr("preprocessing.ffmpeg.program._candidates", lambda: iter([str(old)]))
    with pytest.raises(UserError, match=r"4\.2\.7.*install ffmpeg 5\.1 or later"):
        find_ffmpeg()
    monkeypatch.setattr("preprocessing.ffmpeg.program._candidates", lambda: iter([]))
    with pytest.raises(UserError, match="no ffmpeg found"):
        find_ffmpeg()


def test_what_it_says_of_itself() -> None:
    assert ffmpeg_version() and "Copyright" not in ffmpeg_version()
    assert has_filters("scale", "trim") and not has_filters("scale", "no_such_filter")
