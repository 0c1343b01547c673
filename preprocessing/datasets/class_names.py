"""Names of classes are checked: each is a text that can be seen, and no two look alike."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Iterable

from preprocessing.clips import is_text
from preprocessing.schema import UserError

log = logging.getLogger(__name__)


def check_class_names(names: Iterable[str], where: Callable[[str], str]) -> None:
    """Raise UserError for a name that is empty, invisible or no text, and for two that look alike but are written with
    other characters, as one file system and another write accents. `where` says of a name where it stands."""
    seen = dict[str, str]()
    for name in names:
        if not is_text(name) or any(unicodedata.category(letter) == "Cc" for letter in name) or not _look(name):
            raise UserError(f"{where(name)}: {name!r} is no name of a class: it is empty, or not text")
        other = seen.setdefault(_look(name), name)
        if other != name:
            raise UserError(
                f"{where(name)}: the class names {other!a} and {name!a} look alike, but are written with "
                "different characters; write them alike"
            )


def log_similar_names(names: Iterable[str], where: str) -> None:
    """Say which classes differ in upper and lower case alone."""
    folded = dict[str, str]()
    for name in names:
        other = folded.setdefault(_look(name).casefold(), name)
        if other != name:
            log.warning("%s: %r and %r are two classes: should they be one?", where, other, name)


def _look(name: str) -> str:
    """A name without what nobody sees."""
    visible = "".join(letter for letter in unicodedata.normalize("NFC", name) if unicodedata.category(letter) != "Cf")
    return " ".join(visible.split())
