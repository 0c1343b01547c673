"""Annotation files: every form is read, what is wrong is named with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from preprocessing.datasets.annotations import class_list, csv_rows
from preprocessing.schema import UserError


@pytest.mark.parametrize(
    "text", ["0,walk\n1,run a bit\n", "walk\nrun a bit\n", "1,run a bit\n0,walk\n", "\n0 walk\n1 run a bit"]
)
def test_class_list_forms(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.txt").write_text(text)
    assert class_list(tmp_path / "c.txt") == ("walk", "run a bit")


@pytest.mark.parametrize("text", ["0,a\n0,b\n", "0,a\n2,b\n", "a\na\n", ""])
def test_class_list_refuses(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.txt").write_text(text)
    with pytest.raises(UserError, match=r"c\.txt"):
        class_list(tmp_path / "c.txt")


def test_csv_refuses(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("path,label\nx,1\ny\n")
    with pytest.raises(UserError, match=r"m.csv:1: no column 'split'"):
        list(csv_rows(path, ("path", "label", "split")))
    with pytest.raises(UserError, match=r"m.csv:3: the row does not"):
        list(csv_rows(path, ("path", "label")))
    path.write_bytes(b"path,label\n\xff\xfe,1\n")
    with pytest.raises(UserError, match="not a CSV file"):
        list(csv_rows(path, ("path", "label")))
