"""Seeking in a file of ten minutes: a late segment against an early one, 16 frames against decoding everything.

Prints one JSON object. `late_over_early` compares five seconds at the end with five at the beginning, both from a key
frame on; the aim is 1.2. `behind_over_early` is that of five seconds that begin half way between two key frames, whose
frames before have to be decoded too: it has no aim.
`samples_over_full` compares the 16 frames that a prediction looks at with decoding the file as packing does, in one
thread; the aim is 0.125. `samples_over_full_threads` is the same against all cores. Exit status 1 if an aim is missed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' helpers, but behind this checkout's packages
sys.path.insert(0, str(Path(__file__).parents[2]))

from preprocessing.ffmpeg.program import find_ffmpeg
from preprocessing.frame_choice import evaluation_frames
from preprocessing.media.frame_stream import extract_frames
from preprocessing.media.sampled import sample_frames
from preprocessing.processors import usable_cores
from preprocessing.schema import ExtractionSpec

SPEC = ExtractionSpec(height=224)
MINUTES, RATE, LENGTH_S, ROUNDS = 10, 25, 5, 3
LATE_S, BEHIND_S = MINUTES * 60 - 2 * LENGTH_S, MINUTES * 60 - 3 * LENGTH_S
MOST_LATE, MOST_SAMPLES = 1.2, 0.125


def make(folder: Path) -> Path:
    """640x360, H.264 with a key frame every ten seconds, which is the most that x264 leaves out by itself."""
    part, path = folder / "part.mp4", folder / "whole.mp4"
    picture = f"testsrc2=s=640x360:d=20:r={RATE},noise=alls=8:allf=t"
    codec = ["-c:v", "libx264", "-preset", "veryfast", "-g", 10 * RATE, "-sc_threshold", 0, "-pix_fmt", "yuv420p"]
    run("-f", "lavfi", "-i", picture, *codec, part)
    run("-stream_loop", MINUTES * 3 - 1, "-i", part, "-c", "copy", path)
    return path


def run(*arguments: object) -> None:
    """Run ffmpeg."""
    subprocess.run([find_ffmpeg(), "-nostdin", "-v", "error", "-y", *map(str, arguments)], check=True)


def segment(path: Path, start_s: float) -> None:
    """Extract some seconds."""
    with extract_frames(path, SPEC, start_s=start_s, end_s=start_s + LENGTH_S) as stream:
        assert sum(1 for _ in stream) == RATE * LENGTH_S


def samples(path: Path, num_frames: int, threads: int) -> None:
    """Extract the frames that a prediction looks at."""

    def rule(count: int) -> list[int]:
        frames: list[int] = evaluation_frames(count, num_frames, "last").tolist()
        return frames

    clip = sample_frames(path, SPEC, rule, threads=threads)
    assert len(clip) == MINUTES * 60 * RATE and len(clip.jpegs) == num_frames


def decode(path: Path, threads: int) -> None:
    """Decode everything."""
    run("-threads", threads, "-i", path, "-map", "0:v:0", "-f", "null", "-")


def main() -> int:
    """Time each some times; the best of them count."""
    cores = usable_cores()
    with tempfile.TemporaryDirectory() as scratch:
        path = make(Path(scratch))
        runs: dict[str, Callable[[], None]] = {
            "early": lambda: segment(path, 0),
            "late": lambda: segment(path, LATE_S),
            "behind": lambda: segment(path, BEHIND_S),
            "samples": lambda: samples(path, 16, cores),
            "full": lambda: decode(path, 1),
            "full_threads": lambda: decode(path, cores),
        }
        seconds = {name: min(timed(each) for _ in range(ROUNDS)) for name, each in runs.items()}
    ratios = {
        "late_over_early": seconds["late"] / seconds["early"],
        "behind_over_early": seconds["behind"] / seconds["early"],
        "samples_over_full": seconds["samples"] / seconds["full"],
        "samples_over_full_threads": seconds["samples"] / seconds["full_threads"],
    }
    rounded = {f"{name}_s": round(value, 2) for name, value in seconds.items()}
    rounded |= {name: round(value, 3) for name, value in ratios.items()}
    print(json.dumps({"bench": "seek", "cores": cores, **rounded}))
    return int(ratios["late_over_early"] > MOST_LATE or ratios["samples_over_full"] > MOST_SAMPLES)


def timed(run: Callable[[], None]) -> float:
    """Seconds that a run takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
