"""Reading of annotation files: lines, CSV, JSON, class names.

Whatever is wrong with a file is a UserError that names the file and the line.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from preprocessing.schema import UserError

SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"} | {
    "test": "test",
    "testing": "test",
}
"""Name of a split in annotation files -> our name of it."""


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """("file:line", text) of every line that is not blank. Raises UserError if the file is not UTF-8 text."""
    try:
        with open(path, encoding="utf-8-sig", newline=None) as file:
            for number, line in enumerate(file, 1):
                if text := line.strip("\r\n"):
                    yield f"{path}:{number}", text
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def csv_rows(path: Path, columns: Iterable[str], delimiter: str = ",") -> Iterator[tuple[str, dict[str, str]]]:
    """("file:line", row) of a CSV file with a header. Raises UserError for missing columns or cells."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            missing = [name for name in columns if name not in (reader.fieldnames or [])]
            if missing:
                raise UserError(f"{path}:1: no column {', '.join(map(repr, missing))}; found {reader.fieldnames}")
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if None in row or any(row[name] is None for name in columns):
                    raise UserError(f"{where}: the row does not have the header's number of cells")
                yield where, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8 ({error})") from None


def read_json(path: Path) -> object:
    """Content of a JSON file. Raises UserError with the place where it cannot be read."""
    try:
        return json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def to_int(text: str, what: str, where: str) -> int:
    """`text` as a whole number. Raises UserError naming `what` and `where`."""
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{where}: {what} is {text!r}, not a whole number") from None


def first_existing(root: Path, names: Iterable[str]) -> Path | None:
    """The first of `names` that exists below `root` or its folder `annotations`."""
    for name in names:
        for path in (root / name, root / "annotations" / name):
            if path.is_file():
                return path
    return None


def class_list(path: Path) -> tuple[str, ...]:
    """Class names from lines `index,name` (or `index name`), or of names alone, in the order of their index."""
    names: dict[int, str] = {}
    for position, (where, line) in enumerate(numbered_lines(path)):
        head, _, tail = line.replace(",", " ", 1).partition(" ")
        index, name = (int(head), tail.strip()) if head.isdigit() and tail.strip() else (position, line.strip())
        if index in names:
            raise UserError(f"{where}: class {index} is named twice, {names[index]!r} and {name!r}")
        names[index] = name
    if sorted(names) != list(range(len(names))) or not names:
        raise UserError(f"{path}: classes are not numbered 0 to {len(names) - 1} without gaps")
    if len(set(names.values())) != len(names):
        raise UserError(f"{path}: a class name appears twice")
    return tuple(names[index] for index in range(len(names)))
