"""A small data set of packed frames that cost as much to read and decode as real ones: texture that moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from helpers.packing import pack
from preprocessing.ffmpeg.encode import encode_video
from preprocessing.schema import Clip, DatasetInfo, ExtractionSpec
from preprocessing.shards.index import INDEX, Index, read_index
from preprocessing.shards.planning.job import Job
from preprocessing.shards.storage import Store

CLASSES = 10


def scene(seed: int, num_frames: int) -> Iterator[np.ndarray]:
    """Frames of 640 x 360 pixels, uint8 RGB."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (23, 40, 3), np.uint8))
    smooth = np.asarray(coarse.resize((800, 450), Image.Resampling.BICUBIC))
    texture = np.clip(smooth + rng.normal(0, 0.6, (450, 800, 1)), 0, 255).astype(np.uint8)
    for t in range(num_frames):
        yield texture[t % 90 : t % 90 + 360, 2 * t % 160 : 2 * t % 160 + 640]


def pack_textured(videos: Path, out: Path, *, train: int, val: int = 0, num_frames: int, per_shard: int = 16) -> Index:
    """Encode so many clips as videos and pack their frames."""
    videos.mkdir(parents=True, exist_ok=True)
    clips = []
    for number in range(train + val):
        path = videos / f"{number}.mp4"
        encode_video(path, scene(number, num_frames), 25, crf=30, preset="veryfast")
        split = "train" if number < train else "val"
        clips.append(Clip("textured", split, str(number), path.name, (number % CLASSES,)))
    info = DatasetInfo("textured", tuple(str(label) for label in range(CLASSES)))
    return pack(Job(Store(out), videos, info, ExtractionSpec(), clips_per_shard=per_shard), clips)


def repeat_clips(shards: str, out: Path, times: int) -> str:
    """A data set whose index names every clip so many times: long epochs out of few files. Frames are not copied."""
    store = Store(shards)
    assert store.local is not None
    out.mkdir(parents=True)
    for tar in store.local.glob("*.tar"):
        (out / tar.name).symlink_to(tar.resolve())
    index = read_index(store)
    tables = []
    for number in range(times):
        names = pa.array([f"{name} {number}" for name in index.table["clip_id"].to_pylist()])
        tables.append(index.table.set_column(index.table.schema.get_field_index("clip_id"), "clip_id", names))
    longer = pa.concat_tables(tables).cast(index.table.schema)
    pq.write_table(longer.replace_schema_metadata(index.table.schema.metadata), out / INDEX)
    return Store(out).url
