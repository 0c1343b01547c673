"""The records that the halves of the project exchange: clips go in, index rows come out.

A *clip* is one labelled piece of video. Every clip that goes in has one row in the index, failures included, so
that rows(index) == rows(clips) and nothing disappears on the way.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import pyarrow as pa

SPLITS = ("train", "val", "test")
Status = Literal["ok", "damaged", "decode_failed", "probe_failed", "timeout", "too_short", "missing"]
USABLE: tuple[Status, ...] = ("ok", "damaged")
"""Statuses whose frames can be read; the rest are rows that only say why there are none."""
STATUSES: tuple[Status, ...] = (*USABLE, "decode_failed", "probe_failed", "timeout", "too_short", "missing")


class UserError(Exception):
    """Something that the user can put right. The command line prints it as one line and exits with status 2."""


@dataclass(frozen=True, slots=True)
class SourceBox:
    """Where the object is in one frame of a source, in pixels of that frame as it is seen upright."""

    frame: int
    """Number of the frame, from 0."""
    x: float
    """Of the left edge."""
    y: float
    """Of the top edge."""
    width: float
    height: float
    where: str
    """"file:line" of the annotation."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One labelled piece of video, as an annotation file names it.

    `source` is a path below the data root, with "/" between its parts. `start_s`/`end_s` bound a half-open time
    range in seconds, None for the whole file. `labels` are class indices; the first is the main one. `boxes`, where
    a data set knows them, hold for each frame of the source one object box (top, left, bottom, right) as fractions
    of the frame's height and width: with them, evaluation reports how often the patch holds the object. Boxes in
    pixels, whose fractions nobody knows before the source is read, are `source_boxes`; frames that have none there show
    no object.
    """

    dataset: str
    split: str
    clip_id: str
    source: str
    labels: tuple[int, ...]
    source_kind: Literal["video", "frames"] = "video"
    start_s: float | None = None
    end_s: float | None = None
    listed_frames: int | None = None
    """Number of frames that the published list states, if it does."""
    boxes: tuple[tuple[float, float, float, float], ...] | None = None
    source_boxes: tuple[SourceBox, ...] | None = None


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """Facts of a data set: they travel with its shards, so that training needs no more than the shards' folder."""

    name: str
    class_names: tuple[str, ...]
    metric: Literal["map", "top1"] = "top1"
    """What the benchmark is selected and compared by."""
    flip: bool = True
    """May a training clip be mirrored? Not where left and right make the class (Something-Something)."""
    pad: Literal["first", "last"] = "last"
    """Which frame fills up a clip with fewer frames than are sampled."""
    annotations: str = ""
    """Which of the possible annotation files were found and read."""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ExtractionSpec:
    """Everything that decides the bytes of the frames. Its hash names an extraction."""

    height: int = 360
    """Frames are scaled to this height in pixels, keeping the aspect ratio."""
    fps: float | None = None
    """Frames per second, or None for every frame as decoded."""
    quality: int = 2
    """ffmpeg's -q:v for JPEG: 2 (best) to 31."""
    max_frames: int | None = None
    """Stop a clip after so many frames."""
    profile: Literal["clean", "paper"] = "clean"
    """`clean`: frames exactly as decoded, with square pixels. `paper`: what the reference implementation's command
    writes."""
    tone_map: bool = True
    """Bring HDR and wide colours (PQ, HLG, BT.2020) to what an ordinary screen shows. Not in `paper`."""
    deinterlace: bool = False
    """Make whole pictures of interlaced ones."""
    frames_per_clip: int | None = None
    """Pack only the frames that evaluation looks at, and so many that training draws among (`frame_choice.py`); None:
    all."""

    def to_dict(self) -> dict[str, Any]:
        """All fields, but for the later ones where they have their default: what earlier versions wrote stays equal."""
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in _LATER_SETTINGS or value != _LATER_SETTINGS[name]
        }


_LATER_SETTINGS: dict[str, Any] = {"tone_map": True, "deinterlace": False, "frames_per_clip": None}


INDEX_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("split", pa.string()),
        ("labels", pa.list_(pa.int32())),
        ("source", pa.string()),
        ("shard", pa.string()),  # file name of the tar beside the index
        ("key", pa.string()),  # member prefix inside the tar
        ("status", pa.string()),
        ("error", pa.string()),  # the reason in words; empty when status is ok
        ("num_frames", pa.int32()),
        ("listed_frames", pa.int32()),  # null where the published list states none
        ("fps", pa.float64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("duration_s", pa.float64()),
        ("first_offset", pa.int64()),  # byte offset of the first JPEG's data in the tar
        ("frame_sizes", pa.list_(pa.int32())),  # bytes of each JPEG; offsets follow from them
        ("num_bytes", pa.int64()),
        ("seconds", pa.float64()),  # time the extraction took
        ("boxes", pa.list_(pa.list_(pa.float32(), 4))),  # null where unknown; NaN in frames without the object
        # What the source says of itself; null where it does not, for folders, and in indexes of schema 1.
        ("sample_aspect", pa.string()),  # width to height of a pixel, as 4:3
        ("rotation", pa.int32()),  # degrees, counter-clockwise, by which frames were turned to stand upright
        ("transfer", pa.string()),
        ("primaries", pa.string()),
        ("color_range", pa.string()),  # tv or pc
        ("interlaced", pa.bool_()),
        # Of a clip whose frames were not all packed; null where they were, and in indexes of schemas 1 and 2.
        ("source_frames", pa.int32()),  # number of frames of the clip; num_frames are those that are there
        ("frame_indices", pa.list_(pa.int32())),  # which they are, counted from 0
        # Pixels of the source as it is seen upright; null where unknown, and in indexes of schemas 1 to 3.
        ("source_height", pa.int32()),
        ("source_width", pa.int32()),
    ]
)
"""Of index.parquet and of the .parquet beside each shard; METADATA_KEY holds info, spec and versions as JSON."""
SCHEMA_VERSION = 4
"""Of the index: stands in its metadata as `schema`, which the first version lacks. Columns are only ever added."""


def with_all_columns(table: pa.Table) -> pa.Table:
    """Rows of any schema version as rows of this one: columns that they lack are null."""
    for field in INDEX_SCHEMA:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(INDEX_SCHEMA.names).cast(INDEX_SCHEMA.with_metadata(table.schema.metadata))


METADATA_KEY = b"adafocus"
MIN_FRAMES = 3
"""Clips with fewer frames are left out by the published protocols of all benchmarks: status `too_short`."""
