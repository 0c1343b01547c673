"""Annotation files: every form is read, what is wrong is named with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from preprocessing.datasets.annotations import class_list, csv_rows, numbered_classes, read_json, to_int
from preprocessing.schema import UserError


@pytest.mark.parametrize(
    "text",
    [
        *("0,walk\n1,run a bit\n", "walk\nrun a bit\n", "1,run a bit\n0,walk\n", "\n0 walk\n1 run a bit"),
        *(
            "1 walk\n2 run a bit\n",
            "0\twalk\n1\trun a bit\n",
            "id,name\n0,walk\n1,run a bit\n",
            "walk\n  \nrun a bit\n",
        ),
    ],
)
def test_class_list_forms(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.txt").write_text(text)
    assert class_list(tmp_path / "c.txt") == ("walk", "run a bit")


def test_names_may_begin_with_a_number(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("3 point shot\ndunk\nlay up\n")
    assert numbered_classes(tmp_path / "c.txt") == {0: "3 point shot", 1: "dunk", 2: "lay up"}


@pytest.mark.parametrize("text", ["0,a\n0,b\n", "0,a\n2,b\n", "a\na\n", "", "2,a\n3,b\n", "0,a\n1,b\nc\n"])
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
    with pytest.raises(UserError, match=r"m.csv:3: the row does not"):
        list(csv_rows(path, ("path",)))
    path.write_text("path,label,label\nx,1,2\n")
    with pytest.raises(UserError, match=r"m.csv:1: 2 columns are called 'label'"):
        list(csv_rows(path, ("path",), optional=("label",)))
    path.write_bytes(b"path,label\n\xff\xfe,1\n")
    with pytest.raises(UserError, match="not a CSV file"):
        list(csv_rows(path, ("path", "label")))


@pytest.mark.parametrize("text", ["", "1.5", "1_0", "²", "9" * 30, "nan"])
def test_only_whole_numbers_are_numbers(text: str) -> None:
    assert to_int(" -12 ", "it", "x:1") == -12
    with pytest.raises(UserError, match=r"x:1: it is .*, not a whole number"):
        to_int(text, "it", "x:1")


@pytest.mark.parametrize(
    ("text", "message"), [('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' stands there 2 times"), ("[" * 100_000, "")]
)
def test_json_refuses(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=rf"a\.json.*{message}"):
        read_json(tmp_path / "a.json")
