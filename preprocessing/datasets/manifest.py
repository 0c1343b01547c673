"""A manifest in columns: there may be millions of rows, and few different labels and splits."""

from __future__ import annotations

import logging
from array import array
from pathlib import Path

from preprocessing.datasets.annotations import csv_cells
from preprocessing.schema import UserError

log = logging.getLogger(__name__)

COLUMNS = ("path", "label", "split")
OPTIONAL = ("clip_id", "start_s", "end_s", "class")

_TIMES = ("start", "end", "begin", "stop", "time_", "t_start", "t_end")
"""How columns begin that may be meant to cut clips."""


class Manifest:
    """The columns of a manifest.csv that are known here, without blanks around their texts."""

    def __init__(self, path: Path) -> None:
        """Raises UserError for a file that is none, with its line."""
        self.path = path
        self._lines = array("q")
        rows = csv_cells(path, COLUMNS, optional=OPTIONAL)
        _, header = next(rows)
        self._check_other_columns([name for name in header if name not in (*COLUMNS, *OPTIONAL)])
        kept = [(name, header.index(name)) for name in (*COLUMNS, *OPTIONAL) if name in header]
        self._columns: dict[str, list[str]] = {name: [] for name, _ in kept}
        columns, once = [(self._columns[name], place, name == "path") for name, place in kept], dict[str, str]()
        for line, cells in rows:
            self._lines.append(line)
            for column, place, is_unique in columns:
                text = cells[place].strip()
                column.append(text if is_unique else once.setdefault(text, text))
        if not self._lines:
            raise UserError(f"{path}: no rows")

    def _check_other_columns(self, names: list[str]) -> None:
        """Raise UserError for a column that is one of ours but for blanks and capitals; say which others are not
        read."""
        for name in names:
            if (ours := name.strip().lower()) in OPTIONAL:
                raise UserError(f"{self.path}:1: the column {name!r} would not be read: write {ours!r}")
        if names:
            log.info("%s: not read: the columns %s", self.path, ", ".join(map(repr, names)))
        if times := [name for name in names if name.lower().strip().startswith(_TIMES)]:
            log.warning("%s: the columns %s are not read: start_s and end_s cut clips", self.path, ", ".join(times))

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, name: str) -> list[str]:
        """A column; empty texts for one that is not there."""
        return self._columns.get(name) or [""] * len(self)

    def where(self, row: int) -> str:
        """A row as "file:line"."""
        return f"{self.path}:{self._lines[row]}"
