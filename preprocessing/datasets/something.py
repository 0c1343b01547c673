"""Something-Something V1 (folders of JPEGs) and V2 (.webm): 174 classes, trimmed; left and right make classes.

Reads the release's own files (V1 `something-something-v1-{train,validation}.csv`, V2
`something-something-v2-{train,validation}.json`, with their labels file), or the lists
`{train,val}_videofolder.txt` of the TSM and AdaFocus authors.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from preprocessing.clips import ClipList
from preprocessing.datasets.annotations import class_list, first_existing, numbered_lines, read_json, to_int
from preprocessing.datasets.lists import class_names, file_names, find_lists, listed_clips, not_found
from preprocessing.datasets.videos import Videos
from preprocessing.schema import Clip, DatasetInfo, UserError

_NUM_CLASSES = 174
_LISTS = {"train": ("train_videofolder.txt",), "val": ("val_videofolder.txt",)}
_V1 = {
    "train": ("something-something-v1-train.csv",),
    "val": ("something-something-v1-validation.csv",),
}
_V1_LABELS = ("something-something-v1-labels.csv", "labels.csv", "category.txt", "sthv1_label_map.txt")
_V2 = {
    "train": ("something-something-v2-train.json", "train.json"),
    "val": ("something-something-v2-validation.json", "validation.json"),
}
_V2_LABELS = ("something-something-v2-labels.json", "labels.json")
_HEADER = re.compile(r"(video_?)?id;(label|template)", re.IGNORECASE)
_V2_NAMES = ("category.txt", "sthv2_label_map.txt")


def read_ssv1(root: Path) -> tuple[DatasetInfo, list[Clip]]:
    """Clips of V1. Raises UserError for annotations that are absent or wrong."""
    videos = Videos(root, frame_folders=True)
    if files := find_lists(root, _V1):
        rows = [(split, *row) for split, path in files.items() for row in _csv_rows(path)]
        names = _names(root, _V1_LABELS, rows)
        clips = _labelled("ssv1", rows, names, videos)
    else:
        names, files, clips = _videofolder("ssv1", root, videos, _V1_LABELS, _V1["train"][0])
    return _info("ssv1", names, files), clips


def read_ssv2(root: Path) -> tuple[DatasetInfo, list[Clip]]:
    """Clips of V2. Raises UserError for annotations that are absent or wrong."""
    videos = Videos(root, frame_folders=True)
    if files := find_lists(root, _V2):
        rows = [(split, *row) for split, path in files.items() for row in _json_rows(path)]
        labels = first_existing(root, _V2_LABELS)
        names = _label_indices(labels) if labels else _names(root, _V2_NAMES, rows)
        clips = _labelled("ssv2", rows, names, videos)
    else:
        names, files, clips = _videofolder("ssv2", root, videos, _V2_NAMES, _V2["train"][0])
    return _info("ssv2", names, files), clips


def _info(name: str, names: tuple[str, ...], files: dict[str, Path]) -> DatasetInfo:
    return DatasetInfo(name, names, flip=False, pad="first", annotations=file_names(files.values()))


def _videofolder(
    dataset: str, root: Path, videos: Videos, label_files: tuple[str, ...], wanted: str
) -> tuple[tuple[str, ...], dict[str, Path], list[Clip]]:
    files = find_lists(root, _LISTS)
    if not files:
        raise not_found(root, dataset, f"{wanted} and its like, or train_videofolder.txt and val_videofolder.txt")
    clips = listed_clips(dataset, files, _NUM_CLASSES, videos, lambda name: [name], separator=" ")
    return class_names(root, _NUM_CLASSES, label_files), files, clips


def _csv_rows(path: Path) -> list[tuple[str, str, str]]:
    """(place, id, label) of V1's `id;label` lines."""
    rows = []
    for number, (where, line) in enumerate(numbered_lines(path)):
        clip_id, separator, label = line.partition(";")
        if number == 0 and _HEADER.fullmatch(line.strip()):
            continue
        if not separator or not clip_id.strip() or not label.strip():
            raise UserError(f"{where}: {line!r} is not of the form id;label")
        rows.append((where, clip_id.strip(), label.strip().strip('"')))
    return rows


def _json_rows(path: Path) -> list[tuple[str, str, str]]:
    """(place, id, label) of V2's JSON list, where the label is the template without its brackets."""
    entries: Any = read_json(path)
    if not isinstance(entries, list):
        raise UserError(f"{path}: not a list of clips")
    rows = []
    for number, entry in enumerate(entries):
        where = f"{path}: entry {number}"
        if not isinstance(entry, dict) or not {"id", "template"} <= entry.keys():
            raise UserError(f"{where}: no 'id' and 'template' in it")
        if isinstance(entry["id"], bool) or not isinstance(entry["id"], str | int):
            raise UserError(f"{where}: id {entry['id']!r} is no name of a video")
        if not isinstance(entry["template"], str) or not entry["template"].strip():
            raise UserError(f"{where}: template {entry['template']!r} is no name of a class")
        rows.append((where, str(entry["id"]), str(entry["template"]).replace("[", "").replace("]", "")))
    return rows


def _label_indices(path: Path) -> tuple[str, ...]:
    """Class names from V2's labels.json, {"name": "index"}."""
    indices: Any = read_json(path)
    if not isinstance(indices, dict):
        raise UserError(f"{path}: not an object of names and indices")
    names = {to_int(str(index), f"the index of {name!r}", str(path)): str(name) for name, index in indices.items()}
    if sorted(names) != list(range(len(indices))):
        raise UserError(f"{path}: indices are not 0 to {len(indices) - 1}, each once")
    return tuple(names[index].replace("[", "").replace("]", "") for index in range(len(names)))


def _names(root: Path, files: tuple[str, ...], rows: list[tuple[str, str, str, str]]) -> tuple[str, ...]:
    """Class names in the order of the labels file, else of the alphabet."""
    path = first_existing(root, files)
    return class_list(path) if path else tuple(sorted({row[3] for row in rows}))


def _labelled(
    dataset: str, rows: list[tuple[str, str, str, str]], names: tuple[str, ...], videos: Videos
) -> list[Clip]:
    index = {name: number for number, name in enumerate(names)}
    clips = ClipList(len(names))
    for split, where, clip_id, label in rows:
        if label not in index:
            raise UserError(f"{where}: label {label!r} is not in the labels file")
        source = videos.find([clip_id], hint=split)
        extension = ".webm" if dataset == "ssv2" else ""
        kind = videos.kind(source) if source or dataset == "ssv2" else "frames"
        clips.add(Clip(dataset, split, clip_id, source or clip_id + extension, (index[label],), kind), where)
    return clips.clips
