"""A user's own clips: a `manifest.csv` in the data root, or one folder per class (per split, if there are splits).

The manifest has at least the columns path, label, split; clip_id, start_s, end_s are read if they are there, others
ignored. A label is a class name or an index; names come from `classInd.txt` or the column `class` where present.
"""

from __future__ import annotations

from pathlib import Path

from preprocessing.clips import ClipList
from preprocessing.datasets.annotations import SPLIT_NAMES, class_list, csv_rows, first_existing, to_int
from preprocessing.datasets.videos import VIDEO_EXTENSIONS
from preprocessing.schema import Clip, DatasetInfo, UserError

_VAL_SHARE = 5
"""Without split folders every fifth video of a class, in the order of names, is for validation."""


def read_clips(root: Path) -> tuple[DatasetInfo, list[Clip]]:
    """Clips below `root`. Raises UserError if there are none, or for a bad manifest with file and line."""
    manifest = first_existing(root, ["manifest.csv"])
    if manifest is not None:
        return _read_manifest(root, manifest)
    return _read_folders(root)


def _read_manifest(root: Path, manifest: Path) -> tuple[DatasetInfo, list[Clip]]:
    rows = list(csv_rows(manifest, ("path", "label", "split")))
    if not rows:
        raise UserError(f"{manifest}: no rows")
    names = _class_names(root, manifest, rows)
    index = {name: number for number, name in enumerate(names)}
    numeric = all(row["label"].strip().isdigit() for _, row in rows)
    clips = ClipList(len(names))
    for where, row in rows:
        path, label, split = row["path"].strip(), row["label"].strip(), row["split"].strip().lower()
        if not numeric and label not in index:
            raise UserError(f"{where}: label {label!r} is no class of this data set")
        start_s, end_s = _seconds(row, "start_s", where), _seconds(row, "end_s", where)
        cut = "" if start_s is None and end_s is None else f"@{start_s or 0:g}-{'' if end_s is None else f'{end_s:g}'}"
        clip = Clip(
            dataset="folder",
            split=SPLIT_NAMES.get(split, split),
            clip_id=(row.get("clip_id") or "").strip() or path + cut,
            source=path,
            labels=(int(label) if numeric else index[label],),
            source_kind="frames" if (root / path).is_dir() else "video",
            start_s=start_s,
            end_s=end_s,
        )
        clips.add(clip, where)
    return DatasetInfo("folder", names, annotations=manifest.name), clips.clips


def _class_names(root: Path, manifest: Path, rows: list[tuple[str, dict[str, str]]]) -> tuple[str, ...]:
    listed = first_existing(root, ["classInd.txt", "classes.txt"])
    if listed is not None:
        return class_list(listed)
    labels = [row["label"].strip() for _, row in rows]
    if not all(label.isdigit() for label in labels):
        return tuple(sorted(set(labels)))
    names: dict[int, str] = {}
    for where, row in rows:
        number = to_int(row["label"], "label", where)
        name = (row.get("class") or "").strip() or str(number)
        if names.setdefault(number, name) != name:
            raise UserError(f"{where}: class {number} is called {name!r} here and {names[number]!r} above")
    if max(names) >= 10 * len(rows):
        raise UserError(f"{manifest}: label {max(names)} is far beyond the number of rows; number classes from 0")
    return tuple(names.get(number, str(number)) for number in range(max(names) + 1))


def _seconds(row: dict[str, str], column: str, where: str) -> float | None:
    text = (row.get(column) or "").strip()
    try:
        return float(text) if text else None
    except ValueError:
        raise UserError(f"{where}: {column} is {text!r}, not a number of seconds") from None


def _read_folders(root: Path) -> tuple[DatasetInfo, list[Clip]]:
    split_folders = [
        (SPLIT_NAMES[path.name.lower()], path) for path in sorted(root.iterdir()) if path.name.lower() in SPLIT_NAMES
    ]
    split_folders = [(split, path) for split, path in split_folders if path.is_dir()]
    classes = [(split, *item) for split, folder in split_folders for item in _classes(folder)]
    classes = classes or [("", *item) for item in _classes(root)]
    if not classes:
        raise UserError(
            f"{root}: no clips. Put a manifest.csv with the columns path,label,split there, or folders "
            "<class>/<video> or <split>/<class>/<video>"
        )
    names = tuple(sorted({name for _, name, _ in classes}))
    clips = ClipList(len(names))
    for split, name, videos in classes:
        for position, video in enumerate(videos):
            path = video.relative_to(root).as_posix()
            clip_split = split or ("val" if position % _VAL_SHARE == _VAL_SHARE - 1 else "train")
            clips.add(Clip("folder", clip_split, path, path, (names.index(name),)), str(video))
    how = "folders by split and class" if split_folders else "folders by class, every fifth video for validation"
    return DatasetInfo("folder", names, annotations=how), clips.clips


def _classes(folder: Path) -> list[tuple[str, list[Path]]]:
    """Name and videos of every folder in `folder` that holds videos."""
    classes = []
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            videos = sorted(item for item in path.rglob("*") if item.suffix.lower() in VIDEO_EXTENSIONS)
            if videos:
                classes.append((path.name, videos))
    return classes
