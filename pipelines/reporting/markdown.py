"""Texts in Markdown: cells and tables, in which names that come from others are never markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def cell(text: object) -> str:
    """A text as a cell of a table: special characters escaped, in one line."""
    return re.sub(r"\s+", " ", re.sub(r"([\\|`*_<>\[\]])", r"\\\1", str(text))).strip()


def table(headings: Sequence[str], num_words: int, rows: Iterable[Sequence[object]]) -> str:
    """A table whose first `num_words` columns are words and whose others are numbers."""
    line = "|" + "---|" * num_words + "---:|" * (len(headings) - num_words)
    body = ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(headings) + " |", line, *body])
