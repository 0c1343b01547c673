"""Predictions of many videos: paths in, predictions out in order, with videos decoded ahead of the network."""

from __future__ import annotations

import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import torch

from adafocus.config.schema import Precision
from adafocus.inference import predictor
from adafocus.inference.prediction import ClipFrames, Prediction, VideoError
from adafocus.models.adafocus import Patches
from pipelines.paths import Places
from pipelines.serving.hub import find_pretrained, push
from pipelines.tracking.models.checkpoints import SelectedCheckpoint, find_checkpoint
from preprocessing.processors import usable_cores


class AdaFocusPredictor(predictor.AdaFocusPredictor):
    """A trained model for single videos: of a checkpoint's folder, a run in MLflow, or a model that was shared."""

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
        budget: float | None = None,
    ) -> Self:
        """The model of a finished run, by its name or id; `runs` is the folder of its stages.

        Raises UserError if there is no such run.
        """
        places = Places.of(shards or "", Path(runs))
        folder = find_checkpoint(places, run=run, sweep=None, folder=None).folder
        return cls(folder, device=device, precision=precision, patches=patches, shards=shards, budget=budget)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        device: str = "auto",
        precision: Precision = "float32",
        patches: Patches = "policy",
        budget: float | None = None,
    ) -> Self:
        """A shared model: a folder that `save_pretrained` or `adafocus share` has written, or a name on Hugging Face's
        hub (`user/model`), whose `revision` may be a branch, tag or commit.

        Raises UserError if there is no such model.
        """
        return cls(find_pretrained(name, revision), device=device, precision=precision, patches=patches, budget=budget)

    def save_pretrained(self, out: str | Path, *, licence: str = "", hub_name: str = "") -> Path:
        """Write the model as a folder to share, and return that; the card has no numbers but those of the training
        (`adafocus share --run` adds what MLflow knows).

        Raises UserError if there is something else in `out`.
        """
        from pipelines.serving.share import share  # not above: it reads MLflow, which is slow to import

        places = Places.of("", Path("runs"))
        share(SelectedCheckpoint(self.folder), places, Path(out), spec=self.spec, licence=licence, hub_name=hub_name)
        return Path(out)

    def push_to_hub(self, name: str, *, licence: str = "", private: bool = True, token: str | None = None) -> str:
        """Upload the model to Hugging Face's hub as `user/model`; the commit's address. It is private unless you say
        otherwise. Raises UserError where the hub refuses it."""
        with tempfile.TemporaryDirectory() as temporary:
            folder = self.save_pretrained(Path(temporary) / "model", licence=licence, hub_name=name)
            return push(folder, name, private=private, token=token)


Answer = ClipFrames | tuple[ClipFrames, Prediction]
"""What a thread hands on: a clip's frames, or with a budget its prediction too."""


@dataclass(frozen=True, slots=True)
class VideoOutcome:
    """The prediction of one video and the frames that it is based on, or the reason why there is none."""

    path: Path
    prediction: Prediction | None = None
    clip: ClipFrames | None = None
    error: str = ""
    """Why there is no prediction; else empty."""

    def row(self, top: int) -> dict[str, Any]:
        """Plain values, for programs, with the `top` likeliest classes."""
        prediction = self.prediction
        if prediction is None:
            return {"path": str(self.path), "error": self.error}
        return {
            "path": str(self.path),
            "error": "",
            "status": prediction.source.status,
            "frames": prediction.source.num_frames,
            "fps": prediction.source.fps,
            "top": [{"class": name, "probability": p} for name, p in prediction.top(top)],
            "frames_seen": prediction.exit_frames[-1],
            "course": [{"frames": count, "class": name, "probability": p} for count, name, p in prediction.course()],
            "corners": prediction.corners_T2.tolist(),
            **({} if prediction.looks_T is None else {"looked": prediction.looks_T.tolist()}),
            **({} if prediction.sizes_T2 is None else {"sizes": prediction.sizes_T2.tolist()}),
            **({} if self.clip is None or prediction.places_T is None else {"chosen": self.clip.index_T.tolist()}),
            "gflops": prediction.gflops,
            "ms": prediction.times_ms,
        }


def default_decoders(device: torch.device) -> int:
    """How many videos are decoded at once: one a core, or one on two cores where the networks run on a CPU too."""
    return max(usable_cores() // 2, 1) if device.type == "cpu" else usable_cores()


def predict_all(model: predictor.AdaFocusPredictor, paths: Sequence[Path], decoders: int) -> Iterator[VideoOutcome]:
    """Predict each video, in order. `decoders` threads read ahead, by at most two videos each; with a budget they
    predict too, so that nothing is decoded that no prediction needs.

    Closing the iterator, or Ctrl-C, stops the decoding at once.
    """
    stop = threading.Event()
    threads = 1 if len(paths) > 1 else usable_cores()  # of each decoder: several videos keep all cores busy anyhow
    if model.rule is None:
        pool = ThreadPoolExecutor(decoders, "decode", initializer=torch.set_num_threads, initargs=(1,))
        work: Callable[[Path, threading.Event, int], Answer] = model.read
    else:
        pool, work = ThreadPoolExecutor(decoders, "predict"), model.predict_early
    remaining = iter(paths)
    ahead: deque[tuple[Path, Future[Answer]]] = deque()
    try:
        while True:
            for path in islice(remaining, 2 * decoders + 1 - len(ahead)):
                ahead.append((path, pool.submit(work, path, stop, threads)))
            if not ahead:
                return
            path, future = ahead.popleft()
            yield _predict(model, path, future)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _predict(model: predictor.AdaFocusPredictor, path: Path, future: Future[Answer]) -> VideoOutcome:
    try:
        answer = future.result()
    except VideoError as error:
        return VideoOutcome(path, error=str(error))
    clip, prediction = answer if isinstance(answer, tuple) else model.predict_clip(answer)
    return VideoOutcome(path, prediction, clip)
