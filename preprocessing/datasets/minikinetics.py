"""Mini-Kinetics: 200 classes of Kinetics-400, ten-second clips.

Reads `mini_{train,val}_videofolder.txt` of the AR-Net and AdaFocus authors, or Kinetics-400's own CSVs joined with
lists of YouTube ids (`train_ytid_list.txt`, `val_ytid_list.txt`). Files named `<id>_<start>_<end>` are trimmed already;
of a file `<id>` the listed seconds are cut.
"""

from __future__ import annotations

import math
from pathlib import Path

from preprocessing.clips import ClipList
from preprocessing.datasets.annotations import csv_rows, first_existing, numbered_lines, to_float
from preprocessing.datasets.lists import class_names, file_names, find_lists, listed_clips, not_found
from preprocessing.datasets.videos import Videos
from preprocessing.schema import Clip, DatasetInfo, UserError

_LISTS = {
    "train": ("mini_train_videofolder.txt", "minik_train_videofolder.txt"),
    "val": ("mini_val_videofolder.txt", "minik_val_videofolder.txt"),
}
_IDS = {
    "train": ("train_ytid_list.txt", "mini-kinetics-200_train.txt"),
    "val": ("val_ytid_list.txt", "mini-kinetics-200_val.txt"),
}
_CSVS = tuple(
    f"{prefix}{split}.csv"
    for split in ("train", "val", "validate", "validation", "test")
    for prefix in ("kinetics-400_", "kinetics_400_", "kinetics400_", "kinetics_", "k400_", "")
)
_NUM_CLASSES = 200


def read_clips(root: Path) -> tuple[DatasetInfo, list[Clip]]:
    """Clips of both splits. Raises UserError for annotations that are absent or wrong."""
    if lists := find_lists(root, _LISTS):
        names = class_names(root, _NUM_CLASSES, ("minik_classInd.txt", "classInd.txt"))
        clips = listed_clips("minikinetics", lists, _NUM_CLASSES, Videos(root), _listed_names, separator=" ")
        source = file_names(lists.values())
    else:
        ids = find_lists(root, _IDS)
        csvs = [path for name in _CSVS if (path := first_existing(root, [name])) is not None]
        if not ids or not csvs:
            wanted = "mini_train_videofolder.txt and mini_val_videofolder.txt, or Kinetics-400's CSVs "
            raise not_found(root, "Mini-Kinetics", wanted + "(kinetics-400_train.csv, ...) with train_ytid_list.txt")
        names, clips = _read_release(ids, csvs, Videos(root))
        source = file_names([*ids.values(), *csvs])
    return DatasetInfo("minikinetics", names, annotations=source), clips


def _listed_names(name: str) -> list[str]:
    """`<label>/<id>_<start>_<end>` as listed; the id alone is a trimmed file too, for the list counts its frames."""
    short = name.rpartition("/")[2]
    parts = short.rsplit("_", 2)
    trimmed = len(parts) == 3 and all(len(part) == 6 and part.isdigit() for part in parts[1:])
    return [name, short, parts[0]] if trimmed else [name]


def _read_release(ids: dict[str, Path], csvs: list[Path], videos: Videos) -> tuple[tuple[str, ...], list[Clip]]:
    known: dict[str, tuple[str, float, float, str]] = {}
    twice: dict[str, str] = {}
    for path in csvs:
        for where, row in csv_rows(path, ("label", "youtube_id", "time_start", "time_end")):
            start_s, end_s = (to_float(row[name], f"{name} in seconds", where) for name in ("time_start", "time_end"))
            if not 0 <= start_s < end_s < math.inf:
                raise UserError(f"{where}: {row['time_start']} to {row['time_end']} s is no range of time")
            entry = (row["label"].replace("_", " ").strip(), start_s, end_s, where)
            if known.setdefault(row["youtube_id"], entry)[:3] != entry[:3]:
                twice.setdefault(row["youtube_id"], where)
    listed = [(split, where, line.strip()) for split, path in ids.items() for where, line in numbered_lines(path)]
    lost = [(where, clip_id) for _, where, clip_id in listed if clip_id not in known]
    if lost:
        where, clip_id = lost[0]
        files = ", ".join(path.name for path in csvs)
        raise UserError(
            f"{where}: {clip_id!r} and {len(lost) - 1} other ids are in none of {files}; add the CSVs of the other "
            "splits, or take away the list"
        )
    for _, _, clip_id in listed:
        label, *_, where = known[clip_id]
        if clip_id in twice:
            raise UserError(f"{twice[clip_id]}: {clip_id!r} has another label or time than at {where}; keep one")
        if not label:
            raise UserError(f"{where}: the label is empty")
    names = tuple(sorted({known[clip_id][0] for _, _, clip_id in listed}))
    if len(names) > _NUM_CLASSES:
        raise UserError(f"the ids belong to {len(names)} classes, Mini-Kinetics has {_NUM_CLASSES}")
    clips = ClipList(len(names))
    for split, where, clip_id in listed:
        label, start_s, end_s, _ = known[clip_id]
        trimmed = f"{clip_id}_{int(start_s):06d}_{int(end_s):06d}"
        source = videos.find([f"{label}/{trimmed}", trimmed], hint=label)
        whole = None if source else videos.find([f"{label}/{clip_id}", clip_id], hint=label)
        clip = Clip(
            "minikinetics",
            split,
            clip_id,
            source or whole or f"{label}/{trimmed}.mp4",
            (names.index(label),),
            start_s=start_s if whole else None,
            end_s=end_s if whole else None,
        )
        clips.add(clip, where)
    return names, clips.clips
