"""FCVID: 239 classes, untrimmed; a clip may carry several labels.

Reads `fcvid_{train,val}_split.txt` of the AR-Net and AdaFocus authors, or the release's own
`FCVID_VideoName_TrainTestSplit.txt` with `FCVID_Label.txt`, whose test half is the benchmark's validation.
"""

from __future__ import annotations

import os
from pathlib import Path

from preprocessing.clips import ClipList
from preprocessing.datasets.annotations import first_existing, numbered_lines
from preprocessing.datasets.lists import class_names, file_names, find_lists, listed_clips, not_found
from preprocessing.datasets.videos import Videos
from preprocessing.schema import Clip, DatasetInfo, UserError

_LISTS = {"train": ("fcvid_train_split.txt",), "val": ("fcvid_val_split.txt",)}
_NAMES = ("FCVID_VideoName_TrainTestSplit.txt", "materials/FCVID_VideoName_TrainTestSplit.txt")
_LABELS = ("FCVID_Label.txt", "materials/FCVID_Label.txt")
_SPLITS = {"train": "train", "test": "val"}
_BITS = {"0": False, "1": True, "0.0": False, "1.0": True, "-1": False}
_NUM_CLASSES = 239


def read_clips(root: Path) -> tuple[DatasetInfo, list[Clip]]:
    """Clips of both splits. Raises UserError for annotations that are absent or wrong."""
    videos = Videos(root)
    names_file, labels_file = first_existing(root, _NAMES), first_existing(root, _LABELS)
    if lists := find_lists(root, _LISTS):
        clips = listed_clips("fcvid", lists, _NUM_CLASSES, videos, _candidates)
        source = file_names(lists.values())
    elif names_file is not None and labels_file is not None:
        clips = _read_release(names_file, labels_file, videos)
        source = file_names([names_file, labels_file])
    else:
        raise not_found(
            root, "FCVID", f"fcvid_train_split.txt and fcvid_val_split.txt, or {_NAMES[0]} and {_LABELS[0]}"
        )
    names = class_names(root, _NUM_CLASSES, ("classInd.txt", "fcvid_classInd.txt"))
    return DatasetInfo("fcvid", names, metric="map", annotations=source), clips


def _candidates(name: str) -> list[str]:
    """The name as it stands, and without an extension if it has a known one."""
    stem, extension = os.path.splitext(name)
    return [name, stem] if extension else [name]


def _read_release(names_file: Path, labels_file: Path, videos: Videos) -> list[Clip]:
    clips = ClipList(_NUM_CLASSES)
    names, labels = list(numbered_lines(names_file)), list(numbered_lines(labels_file))
    if len(names) != len(labels):
        raise UserError(f"{names_file} has {len(names)} lines, {labels_file.name} has {len(labels)}; they go together")
    for (where, line), (label_where, bits) in zip(names, labels, strict=True):
        name, _, split = line.strip().rpartition("\t" if "\t" in line else " ")
        if split not in _SPLITS or not name.strip():
            raise UserError(f"{where}: {line!r} is not a name and train or test")
        values = bits.replace(",", " ").split()
        if len(values) != _NUM_CLASSES or not set(values) <= _BITS.keys():
            raise UserError(f"{label_where}: not {_NUM_CLASSES} values of 0 or 1")
        numbers = tuple(number for number, value in enumerate(values) if _BITS[value])
        name = os.path.splitext(name.strip().replace("\\", "/").removeprefix("./"))[0]
        source = videos.find([name])
        clips.add(Clip("fcvid", _SPLITS[split], name, source or f"{name}.mp4", numbers), where)
    return clips.clips
