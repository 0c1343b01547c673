"""What gets into the way of work is found, and said with what helps."""

from __future__ import annotations

import json
import logging
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.cli.main import main
from pipelines.machine import checks, software
from pipelines.preprocess.request import Request
from pipelines.preprocess.run import preprocess
from preprocessing.processors import usable_cores
from preprocessing.schema import ExtractionSpec, UserError

SUBJECTS = [
    *("processors", "shared memory", "temporary files", "open files", "results"),
    *("ffmpeg", "torch", "GPU", "Ray", "MLflow store"),
]
TOO_MUCH = 1 << 60
"""More bytes than any disk has."""


@pytest.fixture
def few_files() -> Iterator[int]:
    """So many files may be open in this test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, hard))
    yield 500
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_is_enough_is_no_trouble(tmp_path: Path) -> None:
    assert not checks.check_shared_memory(tmp_path, 1).trouble
    assert not checks.check_disk(tmp_path / "not" / "there", least=1).trouble
    assert checks.check_processors().value.startswith(f"{usable_cores()} of ")


def test_too_little_room_is_trouble(tmp_path: Path) -> None:
    assert "--num-workers 0" in checks.check_shared_memory(tmp_path, TOO_MUCH).trouble
    assert "GB are left" in checks.check_disk(tmp_path, least=TOO_MUCH).trouble
    assert checks.check_shared_memory(tmp_path / "none").value == f"there is no {tmp_path / 'none'}"


def test_a_long_name_of_the_temporary_folder_is_trouble(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    found = checks.check_temporary_folder(folder)
    assert f"its name has {len(str(folder))} bytes" in found.trouble and "TMPDIR" in found.trouble


def test_folders_that_cannot_be_used_are_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    assert f"{tmp_path}/file is a file" in checks.check_disk(tmp_path / "file" / "runs").trouble
    assert "/dev/null is a file" in checks.check_disk(Path("/dev/null/x")).trouble
    assert "--num-workers 0" in checks.check_shared_memory(tmp_path / "none").trouble
    for named in (tmp_path / "none", tmp_path / "file"):
        monkeypatch.setenv("TMPDIR", str(named))
        assert f"TMPDIR is {named}, which is no folder" in checks.check_temporary_folder().trouble


def test_a_low_limit_of_open_files_is_said_before_work(few_files: int, caplog: pytest.LogCaptureFixture) -> None:
    assert "ulimit -n 1024" in checks.check_open_files().trouble
    with caplog.at_level(logging.WARNING):
        checks.say_troubles()
    assert f"open files: {few_files}" in caplog.text and "adafocus doctor" in caplog.text


def test_software_that_cannot_be_used_is_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    assert "takes jobs" in software.check_ray().trouble
    with pytest.raises(UserError, match="takes jobs"):  # before anything is looked for
        preprocess(Request("folder", tmp_path / "none", str(tmp_path / "out"), ExtractionSpec()))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://u:hunter2@127.0.0.1:1/x")
    found = software.check_store(tmp_path)
    assert "driver is not installed" in found.trouble and "hunter2" not in f"{found}"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert software.check_store(tmp_path / "new").value.endswith("made when needed")
    assert software.check_ffmpeg().value != "none"


def test_the_verb_prints_every_check_and_changes_nothing(
    tmp_path: Path, few_files: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (["--json"], []):
        monkeypatch.setattr(sys, "argv", ["adafocus", "doctor", "--runs", "r", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr().out
        assert stop.value.code == 1 and not [*tmp_path.iterdir()]
        if arguments:
            rows = {row["subject"]: row for row in json.loads(out)}
            assert [*rows] == SUBJECTS and rows["open files"]["trouble"]
        else:
            assert all(f"\n{subject} " in f"\n{out}" for subject in SUBJECTS) and "! loaders and Ray open more" in out
