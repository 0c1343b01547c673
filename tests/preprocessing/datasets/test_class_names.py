"""Classes whose names look alike are not two classes in silence."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from preprocessing.datasets import find_dataset
from preprocessing.schema import UserError


def folders(root: Path, *names: str) -> Path:
    """One video in each of these folders."""
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        (root / name / f"{number}.mp4").write_bytes(b"video")
    return root


def test_an_accent_that_two_systems_write_otherwise_makes_no_second_class(tmp_path: Path) -> None:
    root = folders(tmp_path, "train/caf\xe9", "val/cafe\u0301")
    with pytest.raises(UserError, match=r"'caf.xe9' look alike, but are written with different"):
        find_dataset("folder").read_clips(root)


def test_names_that_differ_in_case_alone_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = folders(tmp_path, "train/Run", "val/run", "train/walk", "val/walk")
    with caplog.at_level(logging.WARNING):
        info, _ = find_dataset("folder").read_clips(root)
    assert info.class_names == ("Run", "run", "walk")
    assert [record.getMessage() for record in caplog.records] == [
        f"{root}: 'Run' and 'run' are two classes: should they be one?"
    ]
