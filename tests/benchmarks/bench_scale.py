"""Many clips: what listing, finding, hashing and planning them costs, and how fast a loader starts on their index.

Prints a JSON object for each number of clips. The aims are for ten million clips 3 minutes of processor time and 4 GB,
so 18 microseconds and 400 bytes a clip, and 3 seconds until a loader is there. Exit status 1 if one is missed at the
largest number: `python tests/benchmarks/bench_scale.py 1000000`. The files are not there, only their names.

Two workers of the loader then look up clips all over the index: what each holds for itself (USS, which includes what
the imports take; `own` is what it added) and its share of what processes hold together (PSS).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' helpers, but behind this checkout's packages
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import psutil
from bench_loader import DATA, fake_index

from adafocus.data.clip_table import ClipTable
from adafocus.data.loader import ClipLoader
from preprocessing.clips import clips_digest
from preprocessing.datasets import find_dataset
from preprocessing.shards.planning.plan import SHARD_BYTES, plan_shards
from preprocessing.sources import measure_sources

MOST_MICROSECONDS, MOST_BYTES, MOST_START_S = 18.0, 400.0, 3.0
LOOK_UPS = 20_000


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


def hold(table: ClipTable, barrier: Any, found: Any) -> None:
    """Look up clips as a worker does, then report the megabytes that this process holds while the others do too."""
    before = psutil.Process().memory_full_info()
    for number in np.random.default_rng(os.getpid()).integers(0, len(table), LOOK_UPS).tolist():
        table.num_frames(number), table.frame_sizes(number).sum(), table.labels(number), table.clip_ids[number]
    barrier.wait()
    after = psutil.Process().memory_full_info()
    found.put({"own": (after.uss - before.uss) / 1e6, "uss": after.uss / 1e6, "pss": after.pss / 1e6})
    barrier.wait()


def workers_mb(folder: Path) -> list[dict[str, float]]:
    """What each of two processes that share an index holds."""
    spawn, table = multiprocessing.get_context("spawn"), ClipTable(folder, "train")
    barrier, found = spawn.Barrier(2), spawn.SimpleQueue()
    workers = [spawn.Process(target=hold, args=(table, barrier, found)) for _ in range(2)]
    for worker in workers:
        worker.start()
    held = [found.get() for _ in workers]
    for worker in workers:
        worker.join()
    return [{name: round(value, 1) for name, value in each.items()} for each in held]


def main() -> int:
    """Measure each number of clips, each step in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--frames", type=int, default=100, help="packed frames of each clip in the loader's index")
    options = parser.parse_args()
    spawn, row = multiprocessing.get_context("spawn"), {}
    for count in options.counts:
        with tempfile.TemporaryDirectory() as name:
            write_manifest(Path(name), count)
            with ProcessPoolExecutor(1, spawn) as pool:  # which says it if its process is killed for memory
                found = pool.submit(prepare, Path(name), count).result()
            index = fake_index(Path(name) / "index", count, options.frames)
            starts = []
            for _ in range(2):  # the first makes the file that is memory-mapped
                with ProcessPoolExecutor(1, spawn) as pool:
                    starts.append(round(pool.submit(start, index).result(), 2))
            held = workers_mb(index)
            index_mb = round((index / "index.arrow").stat().st_size / 1e6)
        num_bytes = found.pop("bytes")
        row = {"clips": count, "seconds": found, "microseconds_a_clip": round(1e6 * sum(found.values()) / count, 1)}
        row |= {"bytes_a_clip": round(num_bytes / count), "loader_first_s": starts[0], "loader_again_s": starts[1]}
        row |= {"frames": options.frames, "index_mb": index_mb, "workers_mb": held}
        print(json.dumps(row), flush=True)
    is_fast = row["microseconds_a_clip"] <= MOST_MICROSECONDS and row["loader_again_s"] <= MOST_START_S
    return int(not (is_fast and row["bytes_a_clip"] <= MOST_BYTES))


if __name__ == "__main__":
    sys.exit(main())
