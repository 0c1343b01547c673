"""Small real videos and data roots that tests make for themselves."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from preprocessing.ffmpeg import encode_video, find_ffmpeg
from preprocessing.schema import Clip, DatasetInfo
from preprocessing.shards import plan_shards, write_shard
from preprocessing.storage import Store


def numbered_frames(count: int, height: int = 48, width: int = 64, seed: int = 0) -> list[np.ndarray]:
    """Frames whose upper half has the brightness 10 * number and whose lower half is grey texture."""
    rng = np.random.default_rng(seed)
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[:, : height // 2] = (np.arange(count) * 10 % 250)[:, None, None, None]
    coarse = rng.integers(0, 255, (count, height // 8, width // 4, 1), np.uint8)
    frames[:, height // 2 :] = coarse.repeat(4, 1).repeat(4, 2)[:, : height - height // 2]
    return list(frames)


@pytest.fixture(scope="session")
def make_video() -> Callable[..., Path]:
    """make_video(path, count=12, fps=10, height=48, width=64, seed=0) writes an H.264 file."""

    def make(path: Path, count: int = 12, fps: float = 10, height: int = 48, width: int = 64, seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        encode_video(path, numbered_frames(count, height, width, seed), fps)
        return path

    return make


@pytest.fixture(scope="session")
def run_ffmpeg() -> Callable[..., None]:
    """run_ffmpeg("-i", ...) for files of a form that the project itself never writes."""

    def run(*arguments: object) -> None:
        argv = [find_ffmpeg(), "-nostdin", "-v", "error", "-y", *map(str, arguments)]
        subprocess.run(argv, check=True, timeout=60)

    return run


@pytest.fixture(scope="session")
def folder_root(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    """Twelve clips of two classes with a manifest; two are broken and one is missing."""
    root = tmp_path_factory.mktemp("folder")
    lines = ["path,label,split"]
    for number in range(12):
        split = "train" if number < 8 else "val"
        path = make_video(root / "videos" / f"clip {number}.mp4", count=10 + number, seed=number)
        lines.append(f"{path.relative_to(root)},{'ab'[number % 2]},{split}")
    (root / "videos" / "clip 3.mp4").write_bytes(b"no video at all")
    (root / "videos" / "clip 5.mp4").write_bytes(b"")
    (root / "videos" / "clip 9.mp4").unlink()
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="session")
def write_loop() -> Callable[..., None]:
    """The plain single-process loop over shards that the distributed run has to agree with."""

    def loop(root: Path, clips: list[Clip], out: Path, spec: object, clips_per_shard: int, sizes: list[int]) -> None:
        out.mkdir(parents=True, exist_ok=True)
        for plan in plan_shards(clips, sizes, clips_per_shard):
            write_shard(plan, root, spec, Store(out))

    return loop


@pytest.fixture
def info() -> DatasetInfo:
    return DatasetInfo("folder", ("a", "b"))
