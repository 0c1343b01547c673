"""Measures a finished model: accuracy by source of patches, compute, speed, memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adafocus.acceleration.accelerate import accelerate
from adafocus.config.schema import Precision
from adafocus.data.clip_table import evaluation_split
from adafocus.data.loader import Batch, ClipLoader
from adafocus.devices import device_name, pick_device
from adafocus.evaluation import multiply_adds
from adafocus.evaluation.attentive_probe import attentive_probe
from adafocus.evaluation.calibration import Calibration
from adafocus.evaluation.evaluate import PatchSource, Predictions, evaluate
from adafocus.evaluation.linear_probe import linear_probe
from adafocus.models.adafocus import AdaFocus, Patches
from adafocus.models.adafocus_plus import AdaFocusPlus
from adafocus.training.reports import Options
from pipelines.benchmarks import profiling
from pipelines.benchmarks.exit_curve import ExitPoint, calibration_for, exit_curve
from pipelines.benchmarks.options import DEFAULT_OPTIONS, BenchmarkOptions
from pipelines.benchmarks.other_frames import other_frames
from pipelines.benchmarks.rows import BENCHMARK_ROWS, PROBES, BenchmarkRow, RowKind
from pipelines.benchmarks.weights import load_models
from pipelines.paths import Places
from pipelines.progress import Report, progress
from preprocessing.shards.index import read_metadata

log = logging.getLogger(__name__)


PROBE_KINDS = (("probe", "probe", linear_probe), ("attentive probe", "attentive", attentive_probe))
"""Name, beginning of the rows' keys, and function of the classifiers that are fitted."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """The rows of a checkpoint, the predictions behind each, and the facts: what was measured, on what."""

    rows: list[BenchmarkRow]
    predictions: dict[str, Predictions]
    """By the rows' keys."""
    facts: dict[str, Any]
    exits: list[ExitPoint] = field(default_factory=list)
    """With early exit: a point for each budget."""

    def table(self) -> list[dict[str, Any]]:
        """The rows as plain values."""
        return [asdict(row) for row in self.rows]


def measure_checkpoint(
    folder: Path, places: Places, options: Options, benchmark_options: BenchmarkOptions = DEFAULT_OPTIONS
) -> Measurement:
    """Measure a checkpoint on the evaluation split, or the one asked for, of the shards that it was trained on.

    After warmup there is no policy yet, so the policy's row is left out. Raises UserError for a checkpoint of pretrain,
    which cannot classify a clip by its patches, and for shards with other classes.
    """
    session = _Session(folder, places, options, benchmark_options)
    kinds, precisions = session.measurable(), benchmark_options.precisions
    extra = len(PROBES) * benchmark_options.probe + benchmark_options.exits
    with progress(len(kinds) * len(precisions) + extra) as session.report:
        measured = [pair for precision in precisions for pair in session.measure_rows(precision, kinds)]
        if benchmark_options.probe:
            measured += session.measure_probes()
        rows, predictions = [row for row, _ in measured], {row.key(): predictions for row, predictions in measured}
        calibration, exits = None, list[ExitPoint]()
        if benchmark_options.exits:
            calibration, exits = session.measure_exits(predictions.get("policy"))
    facts = session.facts()
    if benchmark_options.exits:
        facts |= {f"exit.{key}": getattr(calibration, key) for key in ("criterion", "clips", "num_clips") if exits}
    return Measurement(rows, predictions, facts, exits)


class _Session:
    """A checkpoint's model, and the warm-up's where it is there, on one device, with a split to measure them on."""

    def __init__(self, folder: Path, places: Places, options: Options, benchmark_options: BenchmarkOptions) -> None:
        dataset = read_metadata(places.shards)
        self.info, self.digest = dataset.info, dataset.digest
        self.device = pick_device(options.device)
        self.meta, self.models = load_models(folder, places.shards, self.info, self.device)
        self.folder, self.shards, self.options = folder, places.shards, options
        self.compile, self.batch_size = benchmark_options.compile, benchmark_options.batch_size
        self.config = self.models["own"].config
        self.split = benchmark_options.split or evaluation_split(places.shards)
        self.loader = self._loader(self.split)
        self.sample = next(iter(self.loader)).to(self.device)
        self.report: Report
        self.share: float | None = None
        """Of the frames, how many the focuser looked at, where the method skips any."""

    def _loader(self, split: str, num_frames: int | None = None) -> ClipLoader:
        """Of a split, with as many frames of a clip as configured, or another number of them."""
        count = num_frames or self.config.data.num_frames
        data = (
            self.config.data
            if num_frames is None
            else replace(self.config.data, num_frames=count, num_focus_frames=count)
        )
        return ClipLoader(
            self.shards,
            split,
            data,
            batch_size=self.batch_size,
            train=False,
            num_workers=self.options.num_workers,
        )

    def measurable(self) -> list[RowKind]:
        """The rows of BENCHMARK_ROWS whose weights are there and whose parts are trained."""
        kinds = []
        for kind in BENCHMARK_ROWS:
            label = self._label(kind)
            if lacking := self.meta.lacking(kind.patches):
                log.info("%s: left out, for after %s the %s is not trained", label, self.meta.stage, lacking[0])
            elif kind.patches == "oracle" and self.sample.boxes_BT4 is None:
                log.info("%s: left out, for these clips have no boxes of objects", label)
            elif kind.weights in self.models:
                kinds.append(kind)
        return kinds

    def _label(self, kind: RowKind) -> str:
        return kind.label.format(title=self.meta.method.title)

    def _evaluate(self, model: AdaFocus, label: str, patches: PatchSource, loader: ClipLoader) -> Predictions:
        """Predictions of all clips, with the progress shown: a row is one of the work's total."""

        def watch(batch: int, batches: int, clips: int) -> None:
            self.report(1 / batches if loader is self.loader else 0, f"{label}: batch {batch} of {batches}")

        return evaluate(model, loader, patches=patches, seed=self.config.seed, watch=watch)

    def measure_rows(
        self, precision: Precision, kinds: Sequence[RowKind]
    ) -> Iterator[tuple[BenchmarkRow, Predictions]]:
        """Measure rows."""
        models = {
            weights: accelerate(model, precision=precision, compile=self.compile)
            for weights, model in self.models.items()
        }
        for kind in kinds:
            model, label = (
                models[kind.weights],
                ", ".join([self._label(kind), *_changes(precision, compiled=self.compile)]),
            )
            predictions = self._evaluate(model, label, kind.patches, self.loader)
            row = self._row(label, kind.patches, kind.patches, precision, predictions, model, compiled=self.compile)
            yield row, predictions
            if predictions.looks_NT is not None:
                self.share = self.share or float(predictions.looks_NT.float().mean())
                yield from self._measure_skipping(model, precision, row.gflops, predictions)

    def _measure_skipping(
        self, model: AdaFocus, precision: Precision, gflops: float, skipping: Predictions
    ) -> Iterator[tuple[BenchmarkRow, Predictions]]:
        """Measure what skipping chosen frames has to beat: the policy with other frames, or fewer."""
        assert skipping.looks_NT is not None and isinstance(model, AdaFocusPlus)
        share = float(skipping.looks_NT.float().mean())
        for other in other_frames(model, share, gflops):
            loader = self._loader(self.split, other.num_frames)
            label = ", ".join([other.label, *_changes(precision, compiled=False)])
            predictions = self._evaluate(other.model, label, "policy", loader)
            sample = next(iter(loader)).to(self.device)
            row = self._row(
                label, other.key, "policy", precision, predictions, other.model, compiled=False, sample=sample
            )
            yield row, predictions

    def measure_probes(self) -> Iterator[tuple[BenchmarkRow, Predictions]]:
        """Fit and measure classifiers on each network's features of whole frames, linear and attentive, in float32."""
        model, training = accelerate(self.models["own"]), self._loader("train")
        for network, source in PROBES:
            for name, key, fit in PROBE_KINDS:
                label = f"whole frames: {name} on {network}"
                self.report(0, f"{label}: fitting")
                predictions = fit(model, training, self.loader, network)
                self.report(1, label)
                row = self._row(label, f"{key}_{network}", source, "float32", predictions, model, compiled=False)
                yield row, predictions

    def measure_exits(self, predictions: Predictions | None) -> tuple[Calibration | None, list[ExitPoint]]:
        """The thresholds of early exit and a point for each budget, in float32. `predictions` are the policy's, where
        they are there already."""
        self.report(0, "early exit: calibrating")
        calibration = calibration_for(self.folder, self.models["own"], self.shards, self.options)
        if calibration is None:
            return None, []
        model = accelerate(self.models["own"])
        predictions = predictions or evaluate(model, self.loader)
        curve = exit_curve(model, calibration, predictions, self.sample)
        self.report(1, f"early exit: {len(curve)} budgets")
        return calibration, curve

    def _row(
        self,
        label: str,
        patches: str,
        source: PatchSource,
        precision: Precision,
        predictions: Predictions,
        model: AdaFocus,
        *,
        compiled: bool,
        sample: Batch | None = None,
    ) -> BenchmarkRow:
        """Accuracy of the predictions, beside compute, time and memory of the model that made them."""
        scores, online, sample = predictions.metrics(), predictions.online(), sample or self.sample
        costs, parameters = _cost(self.models["own"], source, len(online), predictions.looks_NT)
        is_method = predictions.corners_NS2 is not None and len(online) == len(model.exit_frames)
        frames_seen = model.exit_frames if is_method else range(1, len(online) + 1)  # else one network sees every frame
        log.info("%s: top-1 %.1f %%", label, scores["top1"])
        return BenchmarkRow(
            method=label,
            patches=patches,
            precision=precision,
            compiled=compiled,
            top1=scores["top1"],
            top5=scores["top5"],
            map=scores["map"],
            hit_rate=scores.get("hit_rate"),
            covered=scores.get("covered"),
            gflops=costs[-1],
            parameters=parameters,
            videos_per_s=len(sample.clip_ids) / profiling.median_seconds(model, sample, source),
            latency_ms=1000 * profiling.median_seconds(model, profiling.first_clip(sample), source),
            memory_mb=None if compiled else profiling.peak_bytes(model, sample, source) / 1e6,
            online=[
                {"frames": seen, "gflops": cost, **values}
                for seen, cost, values in zip(frames_seen, costs, online, strict=True)
            ],
        )

    def facts(self) -> dict[str, Any]:
        """What was measured, on what."""
        model, num_classes = self.models["own"], self.info.num_classes
        patches: Patches = "random" if self.meta.lacking("policy") else "policy"
        gflops = multiply_adds.count(self.config, num_classes, patches=patches, looks=self.share)
        return {
            "dataset": self.info.name,
            "digest": self.digest,
            "split": self.split,
            "clips": len(self.loader.clip_ids),
            "metric": self.info.metric,
            "device": device_name(self.options.device),
            "threads": torch.get_num_threads(),
            "batch_size": len(self.sample.clip_ids),
            "checkpoint": self.folder.name,
            "stage": self.meta.stage,
            "patch_size": self.config.model.patch_size,
            **{f"parameters.{part}": value for part, value in multiply_adds.parameters(model).items()},
            **{f"gflops.{part}": value for part, value in gflops.items()},
        }


def _changes(precision: Precision, *, compiled: bool) -> list[str]:
    """What was done to the image networks, in words."""
    return [*([precision] if precision != "float32" else []), *(["compiled"] if compiled else [])]


def _cost(model: AdaFocus, source: PatchSource, exits: int, looks_NT: Tensor | None = None) -> tuple[list[float], int]:
    """GFLOPs per video by each exit, and parameters, those of batch norms included, of the parts that a row uses.

    `looks_NT` are frames that the focuser looked at, where it skipped any.
    """
    parts = multiply_adds.parameters(model)
    if source == "whole":
        whole = multiply_adds.count_whole(model)
        return [whole * (number + 1) / exits if model.is_causal else whole for number in range(exits)], parts["focuser"]
    patches: Patches | None = "policy" if source == "policy" else None if source == "glancer" else "random"
    if patches is None and not model.is_causal:  # however many glances the clip has
        return [multiply_adds.count_model(model, patches=None)["total"]] * exits, parts["glancer"]
    looks_T = None if looks_NT is None else looks_NT.float().mean(0).tolist()
    costs = multiply_adds.exit_costs(model.config, model.num_classes, patches=patches, looks_T=looks_T)
    used = parts["glancer"] if patches is None else parts["total"] - (0 if patches == "policy" else parts["policy"])
    return costs[-exits:], used
