"""Predicting many files: the whole against decoding alone and the network alone, as ratios in one run.

Decoding alone and the network alone have the same threads as in the whole; on two cores one each. The aim is that they
run side by side: the whole takes at most 1.15 times the slower of the two. `--videos` and `--frames` set how many files
of how many frames (640x360) are made; the recipe `folder` (MobileNetV2 twice) has random weights.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from adafocus.checkpoint import Meta, save
from adafocus.config.overrides import override
from adafocus.inference.predictor import AdaFocusPredictor
from adafocus.methods import build_model
from pipelines.recipes import find_recipe
from pipelines.serving.predict import default_decoders, predict_all
from preprocessing.ffmpeg.encode import encode_video
from preprocessing.schema import DatasetInfo, ExtractionSpec

TARGET = 1.15


def frames(count: int, seed: int) -> Iterator[np.ndarray]:
    """Texture that moves, so that there is something to decode."""
    rng = np.random.default_rng(seed)
    big = rng.integers(0, 255, (24, 40, 3), np.uint8).repeat(20, 0).repeat(20, 1)
    for number in range(count):
        moved = np.roll(big, (number % 60, 2 * number), (0, 1))
        yield np.ascontiguousarray(moved[:360, :640])


def seconds(run: Callable[[], object]) -> float:
    """Wall time."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> bool:
    """Returns whether the target is reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=24)
    parser.add_argument("--frames", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    none = {"model.glancer_weights": "none", "model.focuser_weights": "none"}
    config = override(find_recipe("folder"), none)
    torch.manual_seed(0)
    info = DatasetInfo("folder", tuple(f"class {number}" for number in range(200)))
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        save(
            root / "model",
            build_model(config, info.num_classes).eval(),
            Meta.describe(config, stage="finetune", info=info, extraction=ExtractionSpec(height=256)),
        )
        paths = [root / f"{number}.mp4" for number in range(options.videos)]
        for seed, path in enumerate(paths):
            encode_video(path, frames(options.frames, seed), 25)
        model = AdaFocusPredictor.from_folder(root / "model", device="cpu")
        decoders = default_decoders(model.device)
        torch.set_num_threads(max(torch.get_num_threads() - decoders, 1))
        clips = [model.read(path) for path in paths]

        def decode() -> None:
            with ThreadPoolExecutor(decoders, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                list(pool.map(model.read, paths))

        best: dict[str, float] = {}
        for _ in range(options.rounds):
            for name, run in {
                "decoding alone": decode,
                "network alone": lambda: [model.predict_frames(clip) for clip in clips],
                "whole": lambda: list(predict_all(model, paths, decoders)),
            }.items():
                best[name] = min(best.get(name, float("inf")), seconds(run))
    slower = max(best["decoding alone"], best["network alone"])
    print(
        f"\n{options.videos} videos of {options.frames} frames, {decoders} decoders, {torch.get_num_threads()} threads"
    )
    for name, value in best.items():
        print(f"{name:18}{value:8.2f} s{options.videos / value:8.1f} videos/s")
    print(f"whole / slower    {best['whole'] / slower:8.2f}   target {TARGET}")
    return best["whole"] / slower <= TARGET


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
