"""The classes of a manifest: labels are names, or numbers with names in a list or in a column of their own."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from preprocessing.datasets.annotations import first_existing, numbered_classes
from preprocessing.schema import UserError

log = logging.getLogger(__name__)

Rows = list[tuple[str, dict[str, str]]]
"""("file:line", row) of a manifest."""
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]*)?")


def classes_of(root: Path, manifest: Path, rows: Rows) -> tuple[tuple[str, ...], list[int]]:
    """Class names, and the class of each row. Raises UserError for a label that is none."""
    labels = [(where, row["label"].strip()) for where, row in rows]
    for where, label in labels:
        if not label:
            raise UserError(f"{where}: the label is empty")
    listed = first_existing(root, ["classInd.txt", "classes.txt"])
    classes = {} if listed is None else numbered_classes(listed)
    by_name = {name: position for position, name in enumerate(classes.values())}
    if classes and all(label in by_name for _, label in labels):
        return tuple(by_name), [by_name[label] for _, label in labels]
    numeric = [_NUMBER.fullmatch(label) is not None for _, label in labels]
    if not any(numeric) and classes:
        where, label = next(item for item in labels if item[1] not in by_name)
        raise UserError(f"{where}: label {label!r} is not in {listed}")
    if not any(numeric):
        by_name = {name: position for position, name in enumerate(sorted({label for _, label in labels}))}
        return tuple(by_name), [by_name[label] for _, label in labels]
    if not all(numeric):
        few = 2 * sum(numeric) <= len(numeric)  # what stands there less often is the mistake
        where, label = labels[numeric.index(few)]
        raise UserError(
            f"{where}: label {label!r} is {'a number' if few else 'no number'}, unlike most others; where some classes "
            "are called by numbers, list all their names in classes.txt"
        )
    numbers = [_class_number(label, where) for where, label in labels]
    if classes:
        places = {number: position for position, number in enumerate(classes)}
        for number, (where, _) in zip(numbers, labels, strict=True):
            if number not in places:
                raise UserError(f"{where}: label {number} is not in {listed}, which has {min(places)} to {max(places)}")
        return tuple(classes.values()), [places[number] for number in numbers]
    return _names_in_rows(manifest, rows, numbers), numbers


def _class_number(label: str, where: str) -> int:
    """The class that a label such as 3 or 3.0 stands for."""
    whole, _, fraction = label.partition(".")
    if fraction.strip("0"):
        raise UserError(f"{where}: label {label} is not a whole number")
    if int(whole) < 0:
        raise UserError(f"{where}: label {label} is negative; clips without a class have to be left out")
    return int(whole)


def _names_in_rows(manifest: Path, rows: Rows, numbers: list[int]) -> tuple[str, ...]:
    """Names of numbered classes, from the column `class` or the numbers themselves."""
    names: dict[int, str] = {}
    for number, (where, row) in zip(numbers, rows, strict=True):
        name = (row.get("class") or "").strip() or str(number)
        if names.setdefault(number, name) != name:
            raise UserError(f"{where}: class {number} is called {name!r} here and {names[number]!r} above")
    most = max(names)
    if most >= 10 * len(rows):
        raise UserError(f"{manifest}: label {most} is far beyond the number of rows; number classes from 0")
    unused = sorted(set(range(most)) - names.keys())
    if unused:
        log.warning("%s: no clip has label %d: are the classes numbered from 0 on?", manifest, unused[0])
    full = tuple(names.get(number, str(number)) for number in range(most + 1))
    if len(set(full)) != len(full):
        raise UserError(f"{manifest}: two numbers have one name in the column 'class'")
    return full
