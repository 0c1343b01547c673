"""The classes of a manifest: labels are names, or numbers with names in a list or in a column of their own."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from preprocessing.datasets.annotations import first_existing, numbered_classes
from preprocessing.datasets.class_names import check_class_names
from preprocessing.datasets.manifest import Manifest
from preprocessing.schema import UserError

log = logging.getLogger(__name__)

_NO_LABEL = ("nan", "<na>", "n/a", "#n/a", "null")
"""What programs write into an empty cell, in small letters; Python's None too, where a class may be called none."""
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]*)?")


def classes_of(root: Path, manifest: Manifest) -> tuple[tuple[str, ...], list[int]]:
    """Class names, and the class of each row. Raises UserError for a label that is none."""
    labels = manifest["label"]
    kinds = dict.fromkeys(labels)  # far fewer than rows
    if "" in kinds:
        raise UserError(f"{manifest.where(labels.index(''))}: the label is empty")
    check_class_names(kinds, lambda label: manifest.where(labels.index(label)))
    listed = first_existing(root, ["classInd.txt", "classes.txt"])
    classes = {} if listed is None else numbered_classes(listed)
    by_name = {name: position for position, name in enumerate(classes.values())}
    if classes and kinds.keys() <= by_name.keys():
        return tuple(by_name), [by_name[label] for label in labels]
    if unlabelled := next((label for label in kinds if label.lower() in _NO_LABEL or label == "None"), ""):
        raise UserError(
            f"{manifest.where(labels.index(unlabelled))}: label {unlabelled!r} is what programs write where there is "
            "none: remove the row; if it is a class, list the names of all in classes.txt"
        )
    numeric = {label for label in kinds if _NUMBER.fullmatch(label)}
    if not numeric and classes:
        row, label = next((row, label) for row, label in enumerate(labels) if label not in by_name)
        raise UserError(f"{manifest.where(row)}: label {label!r} is not in {listed}")
    if not numeric:
        by_name = {name: position for position, name in enumerate(sorted(kinds))}
        return tuple(by_name), [by_name[label] for label in labels]
    if len(numeric) < len(kinds):
        few = 2 * sum(label in numeric for label in labels) <= len(
            labels
        )  # what stands there less often is the mistake
        row, label = next((row, label) for row, label in enumerate(labels) if (label in numeric) == few)
        raise UserError(
            f"{manifest.where(row)}: label {label!r} is {'a number' if few else 'no number'}, unlike most others; "
            "where some classes are called by numbers, list all their names in classes.txt"
        )
    first: dict[str, int] = {}  # the row of each label's first clip
    for row, label in enumerate(labels):
        first.setdefault(label, row)
    numbers = {label: _class_number(label, manifest.where(first[label])) for label in kinds}
    if classes:
        places = {number: position for position, number in enumerate(classes)}
        for label, number in numbers.items():
            if number not in places:
                where = manifest.where(first[label])
                raise UserError(f"{where}: label {number} is not in {listed}, which has {min(places)} to {max(places)}")
        return tuple(classes.values()), [places[numbers[label]] for label in labels]
    of_rows = [numbers[label] for label in labels]
    return _names_in_rows(manifest, of_rows), of_rows


def _class_number(label: str, where: str) -> int:
    """The class that a label such as 3 or 3.0 stands for."""
    whole, _, fraction = label.partition(".")
    if fraction.strip("0"):
        raise UserError(f"{where}: label {label} is not a whole number")
    if int(whole) < 0:
        raise UserError(f"{where}: label {label} is negative; clips without a class have to be left out")
    return int(whole)


def _names_in_rows(manifest: Manifest, numbers: list[int]) -> tuple[str, ...]:
    """Names of numbered classes, from the column `class` or the numbers themselves."""
    names: dict[int, str] = {}
    for row, (number, text) in enumerate(zip(numbers, manifest["class"], strict=True)):
        name = text or str(number)
        if names.setdefault(number, name) != name:
            raise UserError(
                f"{manifest.where(row)}: class {number} is called {name!r} here and {names[number]!r} above"
            )
    most = max(names)
    if most >= 10 * len(numbers):
        raise UserError(f"{manifest.path}: label {most} is far beyond the number of rows; number classes from 0")
    unused = sorted(set(range(most)) - names.keys())
    if unused:
        log.warning("%s: no clip has label %d: are the classes numbered from 0 on?", manifest.path, unused[0])
    full = tuple(names.get(number, str(number)) for number in range(most + 1))
    if len(set(full)) != len(full):
        raise UserError(f"{manifest.path}: two numbers have one name in the column 'class'")
    return full
