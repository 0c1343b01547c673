"""Trained models for videos by name: runs and files in, predictions out, decoding ahead of the network."""

from __future__ import annotations

import glob
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import torch

from adafocus.config.schema import Precision
from adafocus.inference import predictor
from adafocus.inference.predictor import ClipFrames, Prediction, VideoError
from adafocus.models.adafocus import Patches
from pipelines.benchmarks.select import find_checkpoint
from pipelines.paths import Places
from preprocessing.clips import FRAME_EXTENSIONS, VIDEO_EXTENSIONS
from preprocessing.schema import UserError


class AdaFocusPredictor(predictor.AdaFocusPredictor):
    """The predictor, which can be made of a run in MLflow too."""

    @classmethod
    def from_run(
        cls,
        run: str,
        runs: Path | str = "runs",
        *,
        device: str = "auto",
        precision: Precision = "float32",
        patches: Patches = "policy",
        shards: str | None = None,
    ) -> Self:
        """Of a finished run, by its name or id, whose stages lie below `runs`. Raises UserError if there is none."""
        places = Places.of(shards or "", Path(runs))
        folder = find_checkpoint(places, run=run, sweep=None, folder=None).folder
        return cls(folder, device=device, precision=precision, patches=patches, shards=shards)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one video: a prediction and the frames it was made of, or the reason why there is none."""

    path: Path
    prediction: Prediction | None = None
    clip: ClipFrames | None = None
    error: str = ""

    def row(self, top: int) -> dict[str, Any]:
        """Plain values, for programs."""
        found = self.prediction
        if found is None:
            return {"path": str(self.path), "error": self.error}
        return {
            "path": str(self.path),
            "error": "",
            "status": found.source.status,
            "frames": found.source.num_frames,
            "fps": found.source.fps,
            "top": [{"class": name, "probability": p} for name, p in found.top(top)],
            "course": [{"frames": count, "class": name, "probability": p} for count, name, p in found.course()],
            "corners": found.corners_T2.tolist(),
            "gflops": found.gflops,
            "ms": found.times_ms,
        }


def find_videos(inputs: Sequence[str]) -> list[Path]:
    """Files as they are given; all videos below a folder, or the folder itself if it holds frames; matches of a glob.

    Raises UserError for a folder or a glob in which there is nothing. A file need not exist: that costs its row only.
    """
    found: list[Path] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            inside = sorted(item for item in path.rglob("*") if item.suffix.lower() in VIDEO_EXTENSIONS)
            if not inside and any(name.lower().endswith(FRAME_EXTENSIONS) for name in os.listdir(path)):
                inside = [path]
        elif not path.exists() and glob.has_magic(given):
            inside = sorted(map(Path, glob.glob(given, recursive=True)))
        else:
            inside = [path]
        if not inside:
            raise UserError(f"there is no video in {given}")
        found += inside
    return list(dict.fromkeys(found))


def default_decoders(device: torch.device) -> int:
    """Videos that are decoded at once: on a CPU half of its cores, the others are the network's; else all of them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores // 2, 1) if device.type == "cpu" else cores


def predict_all(model: predictor.AdaFocusPredictor, paths: Sequence[Path], decoders: int) -> Iterator[Outcome]:
    """One outcome a video, in order. `decoders` threads read ahead, by at most two videos each.

    Closing the iterator, or Ctrl-C, stops the decoding at once.
    """
    stop = threading.Event()
    pool = ThreadPoolExecutor(decoders, "decode", initializer=torch.set_num_threads, initargs=(1,))
    waiting = iter(paths)
    ahead: deque[tuple[Path, Future[ClipFrames]]] = deque()
    try:
        while True:
            for path in islice(waiting, 2 * decoders + 1 - len(ahead)):
                ahead.append((path, pool.submit(model.read, path, stop)))
            if not ahead:
                return
            path, future = ahead.popleft()
            yield _outcome(model, path, future)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _outcome(model: predictor.AdaFocusPredictor, path: Path, future: Future[ClipFrames]) -> Outcome:
    if not path.exists():
        return Outcome(path, error="missing: there is no such file")
    try:
        clip = future.result()
    except VideoError as error:
        return Outcome(path, error=str(error))
    return Outcome(path, model.predict_frames(clip), clip)
