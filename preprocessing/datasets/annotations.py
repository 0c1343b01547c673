"""Reading of annotation files: lines, CSV, JSON, class names.

Whatever is wrong with a file is a UserError that names the file and the line.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
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
                if line.strip():
                    yield f"{path}:{number}", line.strip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def csv_rows(
    path: Path, columns: Sequence[str], delimiter: str = ",", optional: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, str]]]:
    """("file:line", row) of a CSV file with a header that has all of `columns`, and any of `optional`.

    Raises UserError for a column that is missing or stands there twice, and for a row of too few or too many cells.
    """
    names: list[str] = []
    for line, cells in csv_cells(path, columns, delimiter, optional):
        if names:
            yield f"{path}:{line}", dict(zip(names, cells, strict=True))
        else:
            names = cells


def csv_cells(
    path: Path, columns: Sequence[str], delimiter: str = ",", optional: Sequence[str] = ()
) -> Iterator[tuple[int, list[str]]]:
    """(number of the line, cells) of a CSV file, the header first: see `csv_rows`."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            names = next((cells for cells in reader if cells), [])
            header = Counter(names)
            missing = [name for name in columns if name not in header]
            if missing:
                raise UserError(f"{path}:1: no column {', '.join(map(repr, missing))}; found {names or None}")
            twice = [name for name in (*columns, *optional) if header[name] > 1]
            if twice:
                raise UserError(f"{path}:1: {header[twice[0]]} columns are called {twice[0]!r}; keep one of them")
            yield reader.line_num, names
            for cells in reader:
                if cells and len(cells) != len(names):
                    raise UserError(f"{path}:{reader.line_num}: the row does not have the header's number of cells")
                if cells:
                    yield reader.line_num, cells
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8 ({error})") from None


def read_json(path: Path) -> object:
    """Content of a JSON file. Raises UserError with the place where it cannot be read, and for a name that an object
    has twice."""
    try:
        return json.loads(path.read_text("utf-8-sig"), object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: {error}") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object. Raises ValueError for a name that stands there twice, of which json would keep the last."""
    content = dict(pairs)
    if len(content) < len(pairs):
        name, count = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{name!r} stands there {count} times; remove all but one")
    return content


def to_int(text: str, what: str, where: str) -> int:
    """`text` as a whole number. Raises UserError naming `what` and `where`."""
    if not re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", text):
        raise UserError(f"{where}: {what} is {text!r}, not a whole number")
    return int(text)


def to_float(text: str, what: str, where: str) -> float:
    """`text` as a number, which may be nan or infinite. Raises UserError naming `what`, its unit included, and
    `where`."""
    try:
        return float(text.replace("_", "no number"))  # Python reads 1_0 as 10
    except ValueError:
        name, _, unit = what.partition(" in ")
        raise UserError(f"{where}: {name} is {text!r}, not a number of {unit}") from None


def first_existing(root: Path, names: Iterable[str]) -> Path | None:
    """The first of `names` that exists below `root` or its folder `annotations`."""
    for name in names:
        for path in (root / name, root / "annotations" / name):
            if path.is_file():
                return path
    return None


def class_list(path: Path) -> tuple[str, ...]:
    """Class names in the order of their numbers: see `numbered_classes`."""
    return tuple(numbered_classes(path).values())


def numbered_classes(path: Path) -> dict[int, str]:
    """Class names by number, ascending, from lines `number,name` (or `number name`), or from lines of names alone,
    which are numbered from 0.

    Numbers begin with 0 or 1 and have no gaps. Raises UserError for anything else.
    """
    lines = [(where, line.strip()) for where, line in numbered_lines(path)]
    lines = lines[1:] if lines and re.fullmatch(r"(id|index|label)[,;\s]+name", lines[0][1].lower()) else lines
    matches = [re.fullmatch(r"([0-9]{1,9})[\s,;:]+(\S.*)", line) for _, line in lines]
    if 2 * sum(match is not None for match in matches) <= len(lines):  # some names begin with a number
        matches = [None] * len(lines)
    names: dict[int, str] = {}
    for position, ((where, line), match) in enumerate(zip(lines, matches, strict=True)):
        if match is None and any(matches):
            raise UserError(f"{where}: {line!r} is not of the form number,name as other lines are")
        number, name = (position, line) if match is None else (int(match[1]), match[2].strip().strip('"'))
        if number in names:
            raise UserError(f"{where}: class {number} is named twice, {names[number]!r} and {name!r}")
        if name in names.values():
            raise UserError(f"{where}: the class name {name!r} appears twice")
        names[number] = name
    first = min(names, default=0)
    if first > 1 or sorted(names) != list(range(first, first + len(names))) or not names:
        raise UserError(f"{path}: classes are not numbered 0, 1, 2, ... or 1, 2, 3, ... without gaps")
    return dict(sorted(names.items()))
