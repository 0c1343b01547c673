"""ActivityNet v1.3: 200 classes, untrimmed; a clip may carry two labels.

Reads `actnet_{train,val}_split.txt` of the AR-Net and AdaFocus authors, or the release's own
`activity_net.v1-3.min.json`. Videos are `v_<id>` or `<id>` with any known extension, anywhere below the data root.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preprocessing.clips import ClipList
from preprocessing.datasets.annotations import class_list, first_existing, read_json
from preprocessing.datasets.lists import class_names, file_names, find_lists, listed_clips, not_found
from preprocessing.datasets.videos import Videos
from preprocessing.schema import Clip, DatasetInfo, UserError

_LISTS = {"train": ("actnet_train_split.txt",), "val": ("actnet_val_split.txt",)}
_RELEASE = ("activity_net.v1-3.min.json", "activity_net.v1-3.json")
_SPLITS = {"training": "train", "validation": "val"}
_NUM_CLASSES = 200


def read_clips(root: Path) -> tuple[DatasetInfo, list[Clip]]:
    """Clips of both splits. Raises UserError for annotations that are absent or wrong."""
    videos = Videos(root)
    if lists := find_lists(root, _LISTS):
        names = class_names(root, _NUM_CLASSES)
        clips = listed_clips("activitynet", lists, _NUM_CLASSES, videos, _candidates)
        source = file_names(lists.values())
    elif (release := first_existing(root, _RELEASE)) is not None:
        names, clips = _read_release(root, release, videos)
        source = release.name
    else:
        raise not_found(root, "ActivityNet", "actnet_train_split.txt and actnet_val_split.txt, or " + _RELEASE[0])
    return DatasetInfo("activitynet", names, metric="map", annotations=source), clips


def _candidates(name: str) -> list[str]:
    return [f"v_{name}", name]


def _read_release(root: Path, path: Path, videos: Videos) -> tuple[tuple[str, ...], list[Clip]]:
    content: Any = read_json(path)
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict) or not database:
        raise UserError(f"{path}: there is no 'database' in it; it is not the release's JSON")
    labels = {clip_id: _labels(f"{path}: database[{clip_id!r}]", entry) for clip_id, entry in database.items()}
    listed = first_existing(root, ["classInd.txt"])
    names = class_list(listed) if listed else tuple(sorted({label for each in labels.values() for label in each}))
    index = {name: number for number, name in enumerate(names)}
    clips = ClipList(len(names))
    for clip_id, entry in database.items():
        where = f"{path}: database[{clip_id!r}]"
        if entry.get("subset") == "testing":
            continue  # its labels are withheld
        if entry.get("subset") not in _SPLITS:
            raise UserError(f"{where}: subset is {entry.get('subset')!r}, not training, validation or testing")
        split = _SPLITS[entry["subset"]]
        unknown = [label for label in labels[clip_id] if label not in index]
        if unknown:
            raise UserError(f"{where}: label {unknown[0]!r} is not in {listed.name if listed else path.name}")
        source = videos.find(_candidates(clip_id), hint=split)
        numbers = tuple(index[label] for label in labels[clip_id])
        clips.add(Clip("activitynet", split, clip_id, source or f"v_{clip_id}.mp4", numbers), where)
    return names, clips.clips


def _labels(where: str, entry: Any) -> list[str]:
    """Labels of a video's segments, each once. Raises UserError for one that is not a text."""
    try:
        labels = dict.fromkeys(segment["label"] for segment in entry.get("annotations", []))
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{where}: an annotation has no 'label'; it is not the release's JSON") from None
    empty = [label for label in labels if not isinstance(label, str) or not label.strip()]
    if empty:
        raise UserError(f"{where}: label {empty[0]!r} is no name of a class")
    return list(labels)
