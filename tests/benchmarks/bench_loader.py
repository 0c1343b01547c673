"""Loader against a plain loop over loose JPEGs with PIL that does the same crops; start-up and memory on large indices.

Prints one JSON object a line. `ratio` is clips per second over the plain loop's with the same number of processes; the
aim is 2.5. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' helpers, but behind this checkout's packages
sys.path.insert(0, str(Path(__file__).parents[2]))

from adafocus.config.schema import DataConfig
from adafocus.data.clip_table import ClipTable
from adafocus.data.loader import ClipLoader
from adafocus.data.sampling import training_frames
from adafocus.data.transforms import evaluation_view, training_view
from helpers.textured import pack_textured, repeat_clips
from preprocessing.frame_choice import evaluation_frames
from preprocessing.schema import INDEX_SCHEMA, METADATA_KEY, DatasetInfo
from preprocessing.shards.archive import frame_offsets
from preprocessing.shards.storage import Store

DATA = DataConfig()  # 16 frames, 224 pixels
NUM_CLIPS, NUM_FRAMES, ROUNDS = 32, 48, 3
REPEATS = 4
"""Times that each clip comes in an epoch, for real epochs are long: what they begin and end with counts for little."""


def make(root: Path) -> tuple[Path, Path]:
    """Shards, and the same JPEGs as loose files."""
    index = pack_textured(root / "videos", root / "shards", train=NUM_CLIPS, num_frames=NUM_FRAMES)
    store = Store(root / "shards")
    for row in index.table.to_pylist():
        folder = root / "loose" / row["clip_id"]
        folder.mkdir(parents=True)
        with store.open(row["shard"]) as file:
            offsets = frame_offsets(row["first_offset"], row["frame_sizes"])
            for frame, (offset, size) in enumerate(zip(offsets, row["frame_sizes"], strict=True)):
                (folder / f"{frame:06d}.jpg").write_bytes(file.read_at(size, offset))
    return Path(repeat_clips(str(root / "shards"), root / "long", REPEATS)), root / "loose"


def plain_clip(folder: Path, seed: tuple[int, ...], train: bool) -> torch.Tensor:
    """What a straightforward data set class does: uint8 (T, C, H, W)."""
    rng = np.random.default_rng(seed)
    count = DATA.num_frames
    chosen = training_frames(rng, NUM_FRAMES, count) if train else evaluation_frames(NUM_FRAMES, count)
    images = [Image.open(folder / f"{frame:06d}.jpg").convert("RGB") for frame in chosen]
    width, height = images[0].size
    if train:
        view = training_view(rng, height, width, DATA.crop, DATA.crop_scales, flip=True)
    else:
        view = evaluation_view(height, width, DATA.resize, DATA.crop)
    box = (view.left, view.top, view.left + view.width, view.top + view.height)
    out = []
    for image in images:
        top, left = view.window
        part = image.crop(box).resize(view.scaled[::-1], Image.Resampling.BILINEAR)
        part = part.crop((left, top, left + view.side, top + view.side))
        out.append(np.asarray(part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if view.flip else part))
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).contiguous()


class Loose(torch.utils.data.Dataset):
    """The plain loop as a map-style data set."""

    def __init__(self, folder: Path, train: bool) -> None:
        self.folder, self.train = folder, train

    def __len__(self) -> int:
        return NUM_CLIPS * REPEATS

    def __getitem__(self, number: int) -> torch.Tensor:
        return plain_clip(self.folder / str(number % NUM_CLIPS), (0, 0, number), self.train)


def rate(epoch: Callable[[], int]) -> float:
    """Clips per second of one round."""
    started = time.perf_counter()
    return epoch() / (time.perf_counter() - started)


def compare(shards: Path, loose: Path, train: bool, workers: int) -> dict[str, object]:
    """Both loaders in turns, so that a busy machine hits both alike; the best round of each counts."""
    table = ClipTable(shards, "train")
    ours = ClipLoader(shards, "train", DATA, batch_size=8, train=train, num_workers=workers)
    theirs = torch.utils.data.DataLoader(
        Loose(loose, train), batch_size=8, num_workers=workers, persistent_workers=workers > 0
    )
    epochs = {
        "loader": lambda: sum(len(batch.clip_ids) for batch in ours),
        "plain": lambda: sum(len(batch) for batch in theirs),
    }
    rates: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(1 + ROUNDS):
        for name, epoch in epochs.items():
            rates[name].append(rate(epoch))
    loader, plain = (max(own[1:]) for own in rates.values())  # in the first round workers are started
    return {
        "bench": "loader",
        "mode": "train" if train else "evaluation",
        "processes": max(workers, 1),
        "threads_per_process": 1 if workers else torch.get_num_threads(),
        "clips_per_s": round(loader, 1),
        "plain_clips_per_s": round(plain, 1),
        "ratio": round(loader / plain, 2),
        "frame_kb": round(float(np.mean([table.frame_sizes(number).mean() for number in range(NUM_CLIPS)])) / 1e3, 1),
    }


PER_SHARD = 500
"""Clips in a shard of about 1 GB, of 100 frames of 20 KB each."""


def fake_index(folder: Path, num_clips: int, num_frames: int) -> Path:
    """An index of so many clips, without their shards."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    sizes = rng.integers(8_000, 25_000, num_clips * num_frames, np.int32)
    bounds = pa.array(np.arange(num_clips + 1, dtype=np.int32) * num_frames)
    constant = {"split": "train", "status": "ok", "error": "", "fps": 30.0, "height": 360, "width": 640}
    constant |= {"num_frames": num_frames, "duration_s": 10.0, "first_offset": 512, "num_bytes": 1, "seconds": 1.0}
    columns = {name: pa.repeat(pa.scalar(value), num_clips) for name, value in constant.items()}
    for name in ("clip_id", "source", "key"):
        columns[name] = pa.array([f"v_{number:011d}" for number in range(num_clips)])
    columns["shard"] = pa.array([f"train-{number // PER_SHARD:06d}.tar" for number in range(num_clips)])
    columns["labels"] = pa.array([[number % 200] for number in range(num_clips)])
    columns["frame_sizes"] = pa.ListArray.from_arrays(bounds, pa.array(sizes))
    for name in set(INDEX_SCHEMA.names) - columns.keys():
        columns[name] = pa.nulls(num_clips, INDEX_SCHEMA.field(name).type)
    table = pa.table({field.name: columns[field.name] for field in INDEX_SCHEMA}).cast(INDEX_SCHEMA)
    names = [str(number) for number in range(200)]
    info = DatasetInfo("bench", tuple(names)).to_dict()
    record = {"num_clips": PER_SHARD, "num_bytes": 10**9, "sha256": "", "statuses": {}, "num_frames": 1}
    shards = [{"name": f"train-{number:06d}", **record} for number in range(-(-num_clips // PER_SHARD))]
    told = {
        "info": info,
        "spec": {},
        "versions": {"ffmpeg": []},
        "shards": shards,
        "digest": f"{num_clips}x{num_frames}",
    }
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(told)}), folder / "index.parquet")
    return folder


def start_seconds(folder: Path) -> float:
    """Seconds from nothing to a loader that could be iterated, in a process of its own, imports not counted."""
    started = time.perf_counter()
    ClipLoader(folder, "train", DATA, batch_size=64, train=True)
    return time.perf_counter() - started


def worker_memory(table: ClipTable) -> tuple[float, float]:
    """(own, mapped) megabytes that a worker adds by looking up 2,000 clips all over the index: memory of its own, and
    pages of the mapped file, of which the machine holds one copy."""
    before = psutil.Process().memory_info()
    for number in np.random.default_rng(os.getpid()).integers(0, len(table), 2000).tolist():
        table.num_frames(number), table.frame_sizes(number).sum(), table.labels(number)
    after = psutil.Process().memory_info()
    mapped = after.shared - before.shared
    return (after.rss - before.rss - mapped) / 1e6, mapped / 1e6


def main() -> None:
    """Run everything; a line of JSON each."""
    with tempfile.TemporaryDirectory() as scratch:
        shards, loose = make(Path(scratch))
        for workers in (0, 2):
            for train in (True, False):
                print(json.dumps(compare(shards, loose, train, workers)), flush=True)
        spawn = multiprocessing.get_context("spawn")
        many = fake_index(Path(scratch) / "many", 100_000, 300)
        for state in ("first", "again"):
            with spawn.Pool(1) as pool:
                seconds = pool.apply(start_seconds, (many,))
            print(json.dumps({"bench": "start", "clips": 100_000, "state": state, "seconds": round(seconds, 2)}))
        long = ClipTable(fake_index(Path(scratch) / "long", 20_000, 4_000), "train")
        size = (Path(scratch) / "long" / "index.arrow").stat().st_size / 1e6
        with spawn.Pool(2) as pool:
            for own, mapped in pool.map(worker_memory, [long, long], chunksize=1):
                row = {"bench": "memory", "index_mb": round(size), "worker_own_mb": round(own, 1)}
                print(json.dumps(row | {"worker_mapped_mb": round(mapped, 1)}))


if __name__ == "__main__":
    main()
