"""Preprocessing against bare ffmpeg processes: same arguments, same number in parallel, their output thrown away.

Prints one JSON object. `ratio` is wall time over that of the bare processes, with Ray up already; the aim is 1.10.
`ratio_with_start` counts the start and stop of a local Ray too, some seconds whatever the amount of work. Memory is the
most that one worker and its ffmpeg took together. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import ray
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' helpers, but behind this checkout's packages
sys.path.insert(0, str(Path(__file__).parents[2]))

from pipelines.preprocess.request import Request
from pipelines.preprocess.run import preprocess
from preprocessing.ffmpeg.arguments import extraction_argv
from preprocessing.ffmpeg.encode import encode_video
from preprocessing.schema import ExtractionSpec

NUM_CLIPS, NUM_DISTINCT, NUM_FRAMES = 240, 12, 120
SPEC = ExtractionSpec()
CPUS = os.cpu_count() or 1


def make(root: Path) -> list[Path]:
    """Clips of 4.8 s at 320x240, as in UCF101; every distinct file is linked to several names."""
    root.mkdir()
    lines, paths = ["path,label,split"], []
    for number in range(NUM_CLIPS):
        path = root / f"{number:03d}.mp4"
        if number < NUM_DISTINCT:
            rng = np.random.default_rng(number)
            coarse = Image.fromarray(rng.integers(0, 255, (24, 28, 3), np.uint8))
            smooth = np.asarray(coarse.resize((448, 368), Image.Resampling.BICUBIC))
            scene = np.clip(smooth + rng.normal(0, 4, (368, 448, 1)), 0, 255).astype(np.uint8)
            encode_video(path, [scene[t : t + 240, t : t + 320] for t in range(NUM_FRAMES)], 25)
        else:
            os.link(root / f"{number % NUM_DISTINCT:03d}.mp4", path)
        lines.append(f"{path.name},0,train")
        paths.append(path)
    (root / "manifest.csv").write_text("\n".join(lines))
    return paths


def bare_seconds(paths: list[Path]) -> float:
    """Wall time of one ffmpeg process per clip, as many at a time as there are CPUs."""

    def run(path: Path) -> None:
        subprocess.run(
            extraction_argv(str(path), SPEC), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    started = time.perf_counter()
    with ThreadPoolExecutor(CPUS) as pool:
        list(pool.map(run, paths))
    return time.perf_counter() - started


def our_seconds(root: Path, out: Path) -> float:
    """Wall time of the whole run, reading the manifest and writing the index included."""
    started = time.perf_counter()
    summary = preprocess(Request("folder", root, str(out), spec=SPEC, clips_per_shard=20))
    assert summary["statuses"] == {"ok": NUM_CLIPS} and summary["num_frames"] == NUM_CLIPS * NUM_FRAMES
    return time.perf_counter() - started


class PeakMemory(threading.Thread):
    """Watches this process's descendants: the most that a worker at work and its ffmpeg hold together, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mb, self._stop_asked = 0.0, threading.Event()

    def run(self) -> None:
        """Look five times a second."""
        while not self._stop_asked.wait(0.2):
            for process in psutil.Process().children(recursive=True):
                try:
                    if "ffmpeg" in process.name():
                        pair = [process.memory_info(), process.parent().memory_info()]
                        self.peak_mb = max(self.peak_mb, sum(item.rss for item in pair) / 1e6)
                except (psutil.Error, AttributeError):
                    continue

    def stop(self) -> None:
        """End it."""
        self._stop_asked.set()
        self.join()


def main() -> None:
    """Bare processes before and after, so that a change of the machine's load shows."""
    with tempfile.TemporaryDirectory() as scratch:
        paths = make(Path(scratch) / "videos")
        bare = [bare_seconds(paths)]
        with_start = our_seconds(paths[0].parent, Path(scratch) / "cold")
        ray.init(num_cpus=CPUS, include_dashboard=False, log_to_driver=False)
        watch = PeakMemory()
        watch.start()
        running = our_seconds(paths[0].parent, Path(scratch) / "warm")
        watch.stop()
        ray.shutdown()
        bare.append(bare_seconds(paths))
    mean = sum(bare) / len(bare)
    row = {
        "bench": "preprocess",
        "clips": NUM_CLIPS,
        "processes": CPUS,
        "bare_s": [round(seconds, 1) for seconds in bare],
        "seconds": round(running, 1),
        "seconds_with_start": round(with_start, 1),
        "frames_per_s": round(NUM_CLIPS * NUM_FRAMES / running),
        "ratio": round(running / mean, 3),
        "ratio_with_start": round(with_start / mean, 3),
        "task_memory_mb": round(watch.peak_mb),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
