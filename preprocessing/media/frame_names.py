"""The order of a folder's frames: file names go in; the frames in order, and what is odd about them, come out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

_NUMBER = re.compile(r"(\d+)")
_FEW_KINDS = 8


def order_frames(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Names in the order of the numbers in them, and the oddities in words: frames that are missing or there twice,
    files that are named unlike the others. Where several kinds of files have the same numbers, as pictures and optical
    flow do, there are no frames.

    Hidden files are passed over, as macOS leaves one beside each file (`._00001.jpg`).
    """
    visible = sorted(name for name in names if not name.startswith("."))
    kinds = Counter(_words(name) for name in visible)
    (kind, number), *_ = kinds.most_common(1) or [(("",), 0)]
    if 2 * number <= len(visible) or len(kind) < 2:  # without numbers, or of so many kinds that none is the rule
        if 1 < len(kinds) <= _FEW_KINDS and _share_numbers(visible):
            first = {_words(name): name for name in reversed(visible)}
            kinds_text = ", ".join(sorted(first.values()))
            return [], [f"files of several kinds have the same numbers ({kinds_text}): leave one kind in the folder"]
        return sorted(visible, key=_key), []
    oddities = [f"{name}: not named like the other frames, left out" for name in visible if _words(name) != kind]
    ordered = list[str]()
    for name in sorted((name for name in visible if _words(name) == kind), key=_key):
        if ordered and _numbers(ordered[-1]) == _numbers(name):
            oddities.append(f"{name}: has the number of {ordered[-1]}, left out")
        else:
            ordered.append(name)
    return ordered, oddities + _gaps(ordered)


def _share_numbers(names: list[str]) -> bool:
    """Do most numbers stand in more than one name?"""
    counts = Counter(tuple(_numbers(name)) for name in names)
    return () not in counts and 2 * sum(count > 1 for count in counts.values()) > len(counts)


def _gaps(ordered: list[str]) -> list[str]:
    """Where frames are missing from an even row, in words."""
    numbers = [_numbers(name) for name in ordered]
    if any(first[:-1] != numbers[0][:-1] for first in numbers):
        return []
    steps = [after[-1] - before[-1] for before, after in pairwise(numbers)]
    (step, number), *_ = Counter(steps).most_common(1) or [(1, 0)]
    if 2 * number <= len(steps):
        return []  # numbered by something else than one frame after the other: by time, for instance
    gaps = [at for at, each in enumerate(steps) if each > step and each % step == 0]
    return [f"{steps[at] // step - 1} frames are missing behind {ordered[at]}" for at in gaps]


def _parts(name: str) -> list[str]:
    """The name without its extension, cut into text, number, text, number, ..., text."""
    return _NUMBER.split(name.rpartition(".")[0].lower())


def _words(name: str) -> tuple[str, ...]:
    return tuple(_parts(name)[::2])


def _numbers(name: str) -> list[int]:
    return [int(part) for part in _parts(name)[1::2]]


def _key(name: str) -> tuple[list[str | int], str]:
    """Orders by numbers as numbers; a text stands at every even place and a number at every odd one."""
    return [int(part) if at % 2 else part for at, part in enumerate(_parts(name))], name
