"""A manifest in columns: there may be millions of rows, and few different labels and splits."""

from __future__ import annotations

from array import array
from pathlib import Path

from preprocessing.datasets.annotations import csv_cells
from preprocessing.schema import UserError

COLUMNS = ("path", "label", "split")
OPTIONAL = ("clip_id", "start_s", "end_s", "class")


class Manifest:
    """The columns of a manifest.csv that are known here, without blanks around their texts."""

    def __init__(self, path: Path) -> None:
        """Raises UserError for a file that is none, with its line."""
        self.path = path
        self._lines = array("q")
        rows = csv_cells(path, COLUMNS, optional=OPTIONAL)
        _, header = next(rows)
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

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, name: str) -> list[str]:
        """A column; empty texts for one that is not there."""
        return self._columns.get(name) or [""] * len(self)

    def where(self, row: int) -> str:
        """A row as "file:line"."""
        return f"{self.path}:{self._lines[row]}"
