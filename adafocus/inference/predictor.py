"""A trained model for single videos: a file goes in; what it shows, where the model looked and what that cost come out.

Frames are those of the evaluation: the same extraction, sampling and crop, so that a file and its packed clip have the
same logits.

Shapes: T frames (S where the policy acts), C colours, H W pixels, K classes, k cells of the action map per axis.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self, get_args

import numpy as np
import torch
from torch import Tensor

from adafocus import checkpoint
from adafocus.acceleration.accelerate import accelerate
from adafocus.config.schema import Precision
from adafocus.data.batches import evaluation_clip
from adafocus.data.sampling import clip_frames
from adafocus.data.transforms import evaluation_view
from adafocus.devices import pick_device
from adafocus.evaluation import multiply_adds
from adafocus.evaluation.calibration import SAVES_NOTHING, Calibration
from adafocus.evaluation.early_exit import ExitRule
from adafocus.evaluation.evaluate import clip_corners
from adafocus.inference.early import EarlyPass, FetchFrames, JpegFrames, run_early
from adafocus.inference.online import OnlineClip
from adafocus.inference.prediction import ClipFrames, Prediction, VideoError, action_map
from adafocus.models.adafocus import Patches
from preprocessing.addresses import without_secrets
from preprocessing.frame_choice import Pad
from preprocessing.media.arriving import ArrivingFrames
from preprocessing.media.extraction import DEFAULT_LIMITS, Extraction, Limits
from preprocessing.media.sampled import sample_frames
from preprocessing.processors import usable_cores
from preprocessing.schema import ExtractionSpec, UserError
from preprocessing.shards.index import read_metadata

TIMED = ("decode", "glance", "policy", "focus", "classify")


class AdaFocusPredictor:
    """A model and all that it has to know of videos. Not for several threads at once, but for `read`."""

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "auto",
        precision: Precision = "float32",
        patches: Patches = "policy",
        shards: str | None = None,
        limits: Limits = DEFAULT_LIMITS,
        budget: float | None = None,
    ) -> None:
        """Of a checkpoint's folder. `shards` says how frames were extracted where the checkpoint does not. `budget`: as
        `set_budget`.

        Raises UserError for a folder without a finished checkpoint, and for a stage after which the parts that these
        patches need are not trained yet.
        """
        self.folder = folder
        model, self.meta = checkpoint.load_model(folder)
        if lacking := self.meta.lacking(patches):
            others = [each for each in get_args(Patches) if not self.meta.lacking(each)]
            other = f", or patches {' or '.join(others)}" if others else ""
            raise UserError(
                f"{folder} is of stage {self.meta.stage}, after which its {' and '.join(lacking)} still "
                f"{'hold' if len(lacking) > 1 else 'holds'} initial weights: take a checkpoint of stage "
                f"{' or '.join(self.meta.method.suited(patches))}{other}"
            )
        self.config = model.config
        self.class_names = self.meta.class_names
        self.pad: Pad = self.meta.info["pad"]
        self.spec = extraction_of(self.meta, shards, folder)
        self.patches, self.limits = patches, limits
        self.device = pick_device(device)
        self.model = accelerate(model.to(self.device), precision=precision)
        self.gflops = multiply_adds.count(self.config, model.num_classes, patches=patches, looks=1.0)
        behind_glances = model.saves_early and not model.is_causal
        self._exit_gflops = multiply_adds.exit_counts(model, patches) if behind_glances else []
        self._one_at_a_time = threading.Lock()
        self.set_budget(budget)

    @classmethod
    def from_folder(
        cls,
        folder: Path | str,
        *,
        device: str = "auto",
        precision: Precision = "float32",
        patches: Patches = "policy",
        shards: str | None = None,
        budget: float | None = None,
    ) -> Self:
        """Of a checkpoint's folder, such as runs/finetune-...: see `__init__`."""
        return cls(Path(folder), device=device, precision=precision, patches=patches, shards=shards, budget=budget)

    def set_budget(self, budget: float | None) -> None:
        """From now on stop each clip when the model is sure enough, so that it takes `budget` GFLOPs in the mean.

        None: never. Raises UserError for a model without thresholds, for a budget below them, and where exits save
        nothing.
        """
        self.rule: ExitRule | None = None
        if budget is None:
            return
        if not self.model.saves_early:
            raise UserError(f"{SAVES_NOTHING}: leave the budget out")
        if self.patches != "policy":
            raise UserError(
                f"thresholds of early exit are of the policy's patches: no budget with patches {self.patches}"
            )
        calibration = Calibration.of(self.meta.exits)
        if calibration is None:
            raise UserError(
                "this model has no thresholds of early exit yet: `adafocus calibrate` solves them on its training clips"
            )
        self.rule = calibration.rule(budget)

    def predict(self, video: Path | str | np.ndarray) -> Prediction:
        """Of a video file, of a folder of JPEG frames, or of all frames of a video as uint8 (N, H, W, 3), RGB.

        Raises VideoError if it has no frames, ValueError for another array.
        """
        if self.rule is not None:
            return self.predict_early(video)[1]
        if isinstance(video, np.ndarray):
            return self.predict_frames(self.take(video))
        return self.predict_frames(self.read(video, threads=usable_cores()))

    def read(self, path: Path | str, stop: threading.Event | None = None, threads: int = 1) -> ClipFrames:
        """The first half of `predict`, for threads that run ahead: decode (with so many threads), sample, crop.

        Raises VideoError if there are no frames, or `stop` was set.
        """
        started = time.perf_counter()
        clip = sample_frames(path, self.spec, self._sampled, threads=threads, limits=self.limits, stop=stop)
        if not len(clip):
            raise VideoError(f"{clip.result.status}: {clip.result.error}")
        try:
            glance_TCHW, focus_TCHW = evaluation_clip(clip, self.config.data, self.pad)
        except ValueError as error:  # a folder's JPEG that only a decoder finds broken
            raise VideoError(f"decode_failed: {error}") from error
        elapsed_ms = 1000 * (time.perf_counter() - started)
        return ClipFrames(str(path), glance_TCHW, focus_TCHW, self.focus_index(len(clip)), clip.result, elapsed_ms)

    def take(self, frames_NHWC: np.ndarray, name: str = "frames") -> ClipFrames:
        """As `read`, of all frames of a video as uint8 (N, H, W, 3), RGB. Raises ValueError for another array."""
        if frames_NHWC.dtype != np.uint8 or frames_NHWC.ndim != 4 or frames_NHWC.shape[-1] != 3 or not len(frames_NHWC):
            raise ValueError(f"frames are uint8 (N, H, W, 3), not {frames_NHWC.dtype} {frames_NHWC.shape}")
        started = time.perf_counter()
        count, height, width, _ = frames_NHWC.shape
        data = self.config.data
        view = evaluation_view(height, width, data.resize, data.crop)
        glance, focus = clip_frames(data, count, self.pad)
        frames_NCHW = torch.from_numpy(frames_NHWC).permute(0, 3, 1, 2)
        glance_TCHW = focus_TCHW = torch.stack([view.apply(frames_NCHW[index]) for index in glance.tolist()])
        if not self.model.shares_frames:
            focus_TCHW = torch.stack([view.apply(frames_NCHW[index]) for index in focus.tolist()])
        source = Extraction("ok", num_frames=count, height=height, width=width)
        return ClipFrames(name, glance_TCHW, focus_TCHW, focus, source, 1000 * (time.perf_counter() - started))

    def focus_index(self, num_frames: int) -> np.ndarray:
        """Which frames of a clip of so many the focuser sees, or chooses among, in its order, int64 (T,)."""
        return clip_frames(self.config.data, num_frames, self.pad)[1]

    def _sampled(self, num_frames: int) -> Sequence[int]:
        frames: list[int] = np.union1d(*clip_frames(self.config.data, num_frames, self.pad)).tolist()
        return frames

    def predict_clip(self, clip: ClipFrames) -> tuple[ClipFrames, Prediction]:
        """Of frames that were read, and those of them that the focuser chose or, with a budget, that it took."""
        if self.rule is not None:
            return self._until_sure(clip)
        prediction = self.predict_frames(clip)
        return clip.at(prediction.places_T), prediction

    @torch.no_grad()
    def predict_frames(self, clip: ClipFrames) -> Prediction:
        """The second half of `predict`: the networks."""
        times_ms = {"decode": clip.decode_ms}
        glance_BTCHW = clip.glance_TCHW[None].to(self.device)
        same = clip.focus_TCHW is clip.glance_TCHW
        focus_BTCHW = glance_BTCHW if same else clip.focus_TCHW[None].to(self.device)
        patches: Patches | Tensor = self.patches
        if patches == "random":
            patches = clip_corners(self.model, [clip.name], self.config.seed).to(self.device)
        output = self.model(glance_BTCHW, focus_BTCHW, patches, timer=partial(self._timed, times_ms))
        choice, policy = output.choice, output.choice.policy
        looks_T = None if choice.looks_BT is None else choice.looks_BT[0].cpu()
        corners_T2 = output.corners_BT2[0].cpu()
        return Prediction(
            name=clip.name,
            class_names=self.class_names,
            logits_TK=output.logits_BTK[0].float().cpu(),
            corners_T2=corners_T2,
            map_Skk=None if policy is None else action_map(policy),
            gflops=self._gflops(len(output.logits_BTK[0]), looks_T),
            times_ms=times_ms,
            source=clip.source,
            exit_frames=self.model.exit_frames,
            looks_T=looks_T,
            sizes_T2=None if choice.sizes_BS2 is None else choice.sizes_BS2[0].expand_as(corners_T2).cpu(),
            places_T=None if choice.places_BF is None else choice.places_BF[0].cpu(),
        )

    def _gflops(self, num_exits: int, looks_T: Tensor | None) -> dict[str, float]:
        """Of so many exits, by part; of the focuser only for frames that it looked at."""
        if self._exit_gflops:
            return self._exit_gflops[num_exits - 1]
        share = num_exits / len(self.model.exit_frames)
        gflops = {part: value * share for part, value in self.gflops.items()}
        return gflops if looks_T is None else multiply_adds.of_looks(gflops, looks_T.float().mean().item())

    def predict_early(
        self, video: Path | str | np.ndarray, stop: threading.Event | None = None, threads: int = 1
    ) -> tuple[ClipFrames, Prediction]:
        """With a budget: as `predict`, and the frames that it took. Several threads may call it: what they decode is
        decoded at once, the networks serve one at a time.

        The rest of a file is neither decoded nor checked then: how many frames it has is taken from its packets.
        """
        if isinstance(video, np.ndarray):
            return self._until_sure(self.take(video))
        if self.model.is_causal and ArrivingFrames.fits(video, self.spec):
            found = self._while_it_arrives(video, stop)
            if found is not None:
                return found
        return self._until_sure(self.read(video, stop, threads))

    def _while_it_arrives(self, path: Path | str, stop: threading.Event | None) -> tuple[ClipFrames, Prediction] | None:
        """Decode no further than the exit; None for a file that has to be read as a whole first."""
        started = time.perf_counter()
        with ArrivingFrames(path, self.spec, self._sampled, limits=self.limits, stop=stop) as jpegs:
            if not jpegs.is_sound:
                return None
            index_T = self.focus_index(jpegs.num_frames)
            times_ms = {"decode": 1000 * (time.perf_counter() - started)}
            try:
                seen = self._run_early(JpegFrames(jpegs, index_T.tolist(), self.config.data), times_ms)
            except (LookupError, ValueError):
                return None
            if len(seen.logits_TK) == len(index_T):
                with self._timed(times_ms, "decode"):
                    jpegs.read_to_the_end()
            if not jpegs.is_sound:
                return None
        clip = ClipFrames(str(path), seen.frames_TCHW, seen.frames_TCHW, index_T, jpegs.result, times_ms["decode"])
        return self._answered(clip, seen, times_ms)

    def _until_sure(self, clip: ClipFrames) -> tuple[ClipFrames, Prediction]:
        """The same for a clip whose frames are there."""
        times_ms = {"decode": clip.decode_ms}
        offered = None if self.model.shares_frames else _taken_from(clip.focus_TCHW)
        seen = self._run_early(_taken_from(clip.glance_TCHW), times_ms, offered)
        return self._answered(clip, seen, times_ms)

    def _run_early(self, glance: FetchFrames, times_ms: dict[str, float], look: FetchFrames | None = None) -> EarlyPass:
        assert self.rule is not None
        return run_early(self.model, self.rule, glance, look, partial(self._timed, times_ms), self._one_at_a_time)

    def _answered(self, clip: ClipFrames, seen: EarlyPass, times_ms: dict[str, float]) -> tuple[ClipFrames, Prediction]:
        """The clip cut to what was computed of it, and its prediction. Where it stopped at the glances those are shown,
        as frames that the focuser did not look at."""
        count = len(seen.corners_T2)
        if not count:
            glanced = clip_frames(self.config.data, clip.source.num_frames, self.pad)[0]
            nothing = torch.zeros(len(glanced), 2)
            unseen = torch.zeros(len(glanced), dtype=torch.bool)
            seen = replace(seen, frames_TCHW=seen.glance_TCHW, corners_T2=nothing, sizes_T2=None, looks_T=unseen)
            cut = replace(clip, focus_TCHW=seen.glance_TCHW, index_T=glanced, boxes_T4=None)
        elif seen.places_T is None:
            boxes_T4 = None if clip.boxes_T4 is None else clip.boxes_T4[:count]
            both = seen.frames_TCHW
            cut = replace(clip, glance_TCHW=both, focus_TCHW=both, index_T=clip.index_T[:count], boxes_T4=boxes_T4)
        else:
            cut = replace(clip.at(seen.places_T), focus_TCHW=seen.frames_TCHW)
        prediction = Prediction(
            name=clip.name,
            class_names=self.class_names,
            logits_TK=seen.logits_TK,
            corners_T2=seen.corners_T2,
            map_Skk=seen.map_Skk,
            gflops=self._gflops(len(seen.logits_TK), seen.looks_T),
            times_ms=times_ms,
            source=clip.source,
            exit_frames=self.model.exit_frames[: len(seen.logits_TK)],
            looks_T=seen.looks_T,
            sizes_T2=seen.sizes_T2,
            places_T=seen.places_T if count else None,
        )
        return cut, prediction

    def stream(self) -> OnlineClip:
        """For frames that arrive one by one; with a budget its answers say when no further frame is needed. Raises
        UserError for a model that needs the whole clip."""
        if not self.model.is_causal:
            raise UserError(
                "this model glances at the whole clip before it looks closely, or its features move back and forth in "
                "time: collect the clip and call predict()"
            )
        return OnlineClip(self.model, self.patches, self.rule)

    @contextlib.contextmanager
    def _timed(self, times_ms: dict[str, float], part: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        times_ms[part] = times_ms.get(part, 0.0) + 1000 * (time.perf_counter() - started)


def _taken_from(frames_TCHW: Tensor) -> FetchFrames:
    """Frames that are there already, by their places."""
    return lambda places: frames_TCHW[list(places)]


def extraction_of(meta: checkpoint.Meta, shards: str | None, folder: Path) -> ExtractionSpec:
    """How frames were made for a checkpoint: as it says itself, else as the index of `shards` says.

    Raises UserError if neither is known.
    """
    if meta.extraction:
        return ExtractionSpec(**meta.extraction)
    if shards is None:
        raise UserError(f"{folder} does not say how its frames were extracted: give its data set (--shards)")
    dataset = read_metadata(shards)
    if meta.digest and dataset.digest != meta.digest:
        raise UserError(f"{folder} was trained on another data set than {without_secrets(shards)}")
    return dataset.spec
