"""Many clips: what listing, finding, hashing and planning them costs, and how fast a loader starts on their index.

Prints a JSON object for each number of clips. The aims are for ten million clips 3 minutes of processor time and 4 GB,
so 18 microseconds and 400 bytes a clip, and 3 seconds until a loader is there. Exit status 1 if one is missed at the
largest number: `python tests/benchmarks/bench_scale.py 1000000`. The files are not there, only their names.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' helpers, but behind this checkout's packages
sys.path.insert(0, str(Path(__file__).parents[2]))

import psutil
from bench_loader import DATA, fake_index

from adafocus.data.loader import ClipLoader
from preprocessing.clips import clips_digest
from preprocessing.datasets import find_dataset
from preprocessing.shards.planning.plan import SHARD_BYTES, plan_shards
from preprocessing.sources import measure_sources

MOST_MICROSECONDS, MOST_BYTES, MOST_START_S = 18.0, 400.0, 3.0
FRAMES = 100
"""Packed frames of a clip in the index that a loader starts on."""


def write_manifest(folder: Path, count: int) -> None:
    """A list of so many clips."""
    with open(folder / "manifest.csv", "w") as file:
        file.write("path,label,split\n")
        for number in range(count):
            split = "val" if number % 10 == 0 else "train"
            file.write(f"videos/{number % 1000:03d}/clip_{number:08d}.mp4,{number % 200},{split}\n")


def prepare(folder: Path, count: int) -> dict[str, float]:
    """Seconds of each step, and the bytes by which this process has grown after one of them."""
    memory = psutil.Process().memory_info
    seconds, before, most = dict[str, float](), memory().rss, 0

    def timed(name: str, work: Callable[[], Any]) -> Any:
        nonlocal most
        started = time.process_time()
        result = work()
        seconds[name] = round(time.process_time() - started, 2)
        most = max(most, memory().rss - before)
        return result

    _, clips = timed("list", lambda: find_dataset("folder").read_clips(folder))
    timed("find", lambda: measure_sources(folder, clips))
    timed("hash", lambda: clips_digest(clips))
    sizes = [1_000_000 + number % 977 for number in range(count)]
    plans = timed("plan", lambda: plan_shards(clips, sizes, shard_bytes=SHARD_BYTES))
    assert sum(len(plan.clips) for plan in plans) == count
    return seconds | {"bytes": most}


def start(folder: Path) -> float:
    """Seconds of processor time until there is a loader."""
    started = time.process_time()
    ClipLoader(folder, "train", DATA, batch_size=64, train=True)
    return time.process_time() - started


def main() -> int:
    """Measure each number of clips, each step in a process of its own."""
    spawn, row = multiprocessing.get_context("spawn"), {}
    for count in [int(text) for text in sys.argv[1:]] or [10_000, 100_000]:
        with tempfile.TemporaryDirectory() as name:
            write_manifest(Path(name), count)
            with spawn.Pool(1) as pool:
                found = pool.apply(prepare, (Path(name), count))
            index = fake_index(Path(name) / "index", count, FRAMES)
            starts = []
            for _ in range(2):  # the first makes the file that is memory-mapped
                with spawn.Pool(1) as pool:
                    starts.append(round(pool.apply(start, (index,)), 2))
        num_bytes = found.pop("bytes")
        row = {"clips": count, "seconds": found, "microseconds_a_clip": round(1e6 * sum(found.values()) / count, 1)}
        row |= {"bytes_a_clip": round(num_bytes / count), "loader_first_s": starts[0], "loader_again_s": starts[1]}
        print(json.dumps(row), flush=True)
    is_fast = row["microseconds_a_clip"] <= MOST_MICROSECONDS and row["loader_again_s"] <= MOST_START_S
    return int(not (is_fast and row["bytes_a_clip"] <= MOST_BYTES))


if __name__ == "__main__":
    sys.exit(main())
