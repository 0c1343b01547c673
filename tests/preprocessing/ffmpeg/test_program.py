"""The ffmpeg that is used can do the work, whatever else is on the machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from preprocessing.ffmpeg.program import VARIABLE, ffmpeg_version, find_ffmpeg, has_filters
from preprocessing.schema import UserError

OLD = """case "$*" in *fps_mode*) echo "Unrecognized option 'fps_mode'." >&2; exit 1;; esac
echo "ffmpeg version 4.2.7 Copyright (c) 2000-2022 the FFmpeg developers"
"""


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

    find_ffmpeg.cache_clear()
    yield make
    find_ffmpeg.cache_clear()


STATIC = find_ffmpeg()


def test_the_one_on_path_is_taken_if_it_can_do_the_work(program: Callable[[str], Path]) -> None:
    assert find_ffmpeg() == STATIC
    find_ffmpeg.cache_clear()
    good = program(f'exec "{STATIC}" "$@"')
    assert find_ffmpeg() == str(good)


@pytest.mark.parametrize(
    ("script", "why"),
    [(OLD, "version 4.2.7: Unrecognized option 'fps_mode'."), ("exit 0", "version unknown"), ("exit 127", "version")],
    ids=["old", "silent", "broken"],
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
    for wrong, why in ((str(old), "4.2.7"), ("/nowhere/ffmpeg", "does not run")):
        monkeypatch.setenv(VARIABLE, wrong)
        find_ffmpeg.cache_clear()
        with pytest.raises(UserError, match=f"{VARIABLE} names {wrong}, which cannot be used: .*{why}"):
            find_ffmpeg()


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
