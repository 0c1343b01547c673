"""Split lists as the authors of the published methods distribute them, shared by several data sets.

A line is `name,num_frames,label[,label...]`, or the same separated by spaces, where the name may hold spaces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from preprocessing.clips import ClipList
from preprocessing.datasets.annotations import class_list, first_existing, numbered_lines, to_int
from preprocessing.datasets.videos import Videos
from preprocessing.schema import Clip, UserError


@dataclass(frozen=True, slots=True)
class ListedClip:
    """One line of a split list."""

    name: str
    num_frames: int
    labels: tuple[int, ...]
    """Without repetition, in the order of the line."""
    where: str


def read_list(path: Path, separator: str = ",") -> list[ListedClip]:
    """The lines of a split list. Raises UserError with file and line for a malformed one."""
    rows = []
    for where, line in numbered_lines(path):
        parts = line.strip().split(",") if separator == "," else line.strip().rsplit(" ", 2)
        if len(parts) < 3 or not parts[0].strip():
            form = separator.join(["name", "num_frames", "label"])
            raise UserError(f"{where}: {line!r} is not of the form {form}")
        count = to_int(parts[1], "the number of frames", where)
        if not 1 <= count < 1 << 31:
            raise UserError(f"{where}: the number of frames is {count}")
        labels = tuple(dict.fromkeys(to_int(part, "a label", where) for part in parts[2:]))
        rows.append(ListedClip(parts[0].strip(), count, labels, where))
    return rows


def find_lists(root: Path, names: Mapping[str, tuple[str, ...]]) -> dict[str, Path]:
    """Split lists in the root or its folder `annotations`, by split: the first of its `names` that exists."""
    paths = {split: first_existing(root, files) for split, files in names.items()}
    return {split: path for split, path in paths.items() if path is not None}


def file_names(paths: Iterable[Path]) -> str:
    """Names of the annotation files that were read, for `DatasetInfo.annotations`."""
    return ", ".join(path.name for path in paths)


def class_names(root: Path, num_classes: int, names: tuple[str, ...] = ("classInd.txt",)) -> tuple[str, ...]:
    """Class names from the first of the files `names`, else the class numbers. Raises UserError for a wrong number."""
    path = first_existing(root, names)
    if path is None:
        return tuple(str(number) for number in range(num_classes))
    listed = class_list(path)
    if len(listed) != num_classes:
        raise UserError(f"{path}: {len(listed)} classes, the data set has {num_classes}")
    return listed


def listed_clips(
    dataset: str,
    lists: Mapping[str, Path],
    num_classes: int,
    videos: Videos,
    candidates: Callable[[str], list[str]],
    separator: str = ",",
) -> list[Clip]:
    """Clips of split lists. `candidates` gives for a listed name the file names (without extension) to look for."""
    clips = ClipList(num_classes)
    for split, path in lists.items():
        for row in read_list(path, separator):
            names = candidates(row.name)
            source = videos.find(names, hint=split)
            clip = Clip(
                dataset,
                split,
                row.name,
                source or f"{names[0]}.mp4",
                row.labels,
                source_kind=videos.kind(source),
                listed_frames=row.num_frames,
            )
            clips.add(clip, row.where)
    return clips.clips


def not_found(root: Path, dataset: str, wanted: str) -> UserError:
    """The error for a data root without annotations."""
    return UserError(f"{root}: no annotations of {dataset} there (nor in its folder annotations). Needed: {wanted}")
