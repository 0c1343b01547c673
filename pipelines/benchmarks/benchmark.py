"""A finished model measured: accuracy by where it looks, compute, speed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from adafocus import checkpoint
from adafocus.checkpoint import Meta
from adafocus.config.overrides import from_flat
from adafocus.config.schema import Precision
from adafocus.data.clip_table import evaluation_split
from adafocus.data.loader import ClipLoader
from adafocus.devices import pick_device
from adafocus.evaluation import multiply_adds
from adafocus.evaluation.evaluate import PatchSource, Predictions, evaluate
from adafocus.evaluation.linear_probe import linear_probe
from adafocus.methods.identity import stage_folder
from adafocus.models.acceleration import accelerate
from adafocus.models.adafocus import AdaFocus, Patches
from adafocus.training.reports import Options
from pipelines.benchmarks import profiling
from pipelines.paths import Places
from pipelines.training.loggers import device_name
from preprocessing.addresses import without_secrets
from preprocessing.schema import UserError
from preprocessing.shards.index import read_metadata

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class How:
    """What is measured of a model."""

    batch_size: int = 32
    """Clips per batch of the evaluation, and of videos/s and memory."""
    precisions: tuple[Precision, ...] = ("float32",)
    """Of the image networks: each has rows of its own."""
    compile: bool = False
    """Compile the image networks; the time that takes is in no number."""
    probe: bool = False
    """Fit linear classifiers on features of whole frames too."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result table. Percentages, GFLOPs (multiply-adds) per video, videos per second."""

    method: str
    patches: str
    precision: Precision
    """Of the image networks; policy and classifier are in float32."""
    compiled: bool
    """Were the image networks?"""
    top1: float
    top5: float
    map: float
    hit_rate: float | None
    gflops: float
    parameters: int
    """Of the parts that the method uses."""
    videos_per_s: float
    latency_ms: float
    """One video at a time."""
    memory_mb: float | None
    """Most that the batch and what is made of it take at one time; beside the weights. None of compiled networks, for
    what happens inside them cannot be seen."""
    online: list[dict[str, float]]
    """frames, gflops (where a prefix costs its share), map, top1, top5 after each frame."""

    def key(self) -> str:
        """What names the row's metrics."""
        name = "warmup_random" if "warm-up" in self.method else self.patches
        name = name if self.precision == "float32" else f"{name}_{self.precision}"
        return f"{name}_compiled" if self.compiled else name


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What was measured, on what."""

    rows: list[Row]
    predictions: dict[str, Predictions]
    facts: dict[str, Any]

    def table(self) -> list[dict[str, Any]]:
        """The rows as plain values."""
        return [asdict(row) for row in self.rows]


METHODS: tuple[tuple[str, str, PatchSource], ...] = (
    ("policy (AdaFocus)", "own", "policy"),
    ("random, same weights", "own", "random"),
    ("centre, same weights", "own", "centre"),
    ("random, warm-up weights", "warmup", "random"),
    ("none: glancer alone", "own", "glancer"),
)
"""Name, whose weights are used (the checkpoint's own, or those of the warm-up that it came from), where the focuser
looks."""

PROBES: tuple[tuple[Literal["glancer", "focuser"], PatchSource], ...] = (("glancer", "glancer"), ("focuser", "whole"))
"""Networks on whose features of whole frames a linear classifier is fitted, and what they look at."""


def parse_precisions(text: str) -> tuple[Precision, ...]:
    """`float32,bf16` -> both. Raises UserError for others."""
    known = {name: name for name in get_args(Precision)}
    wanted = tuple(dict.fromkeys(text.split(",")))
    for name in wanted:
        if name not in known:
            raise UserError(f"--precision {text!r}: {name!r} is none of {', '.join(known)}")
    return tuple(known[name] for name in wanted)


def benchmark(folder: Path, places: Places, options: Options, how: How = How()) -> Benchmark:
    """Measure a checkpoint on the evaluation split of the shards that it was trained on.

    After warmup there is no policy yet, so the policy's row is left out. Raises UserError for a checkpoint of pretrain,
    which cannot classify a clip by its patches, and for shards with other classes.
    """
    session = _Session(folder, places, options, how)
    measured = [pair for precision in how.precisions for pair in session.methods(precision)]
    if how.probe:
        measured += session.probes()
    rows = [row for row, _ in measured]
    return Benchmark(rows, {row.key(): predicted for row, predicted in measured}, session.facts())


class _Session:
    """A checkpoint's model, and the warm-up's where it is there, on one device, with a split to measure them on."""

    def __init__(self, folder: Path, places: Places, options: Options, how: How) -> None:
        model, self.meta = checkpoint.load_model(folder)
        dataset = read_metadata(places.shards)
        self.info, self.digest = dataset.info, dataset.digest
        _check(self.meta, folder, list(self.info.class_names), places.shards)
        self.folder, self.shards, self.options, self.how = folder, places.shards, options, how
        self.config, self.device = model.config, pick_device(options.device)
        self.split = evaluation_split(places.shards)
        self.loader = self._loader(self.split)
        self.sample = next(iter(self.loader)).to(self.device)
        self.models = {"own": model.to(self.device)}
        warmup = _warmup_of(self.meta, folder.parent)
        if warmup is not None:
            self.models["warmup"] = checkpoint.load_model(warmup)[0].to(self.device)

    def _loader(self, split: str) -> ClipLoader:
        return ClipLoader(
            self.shards,
            split,
            self.config.data,
            batch_size=self.how.batch_size,
            train=False,
            num_workers=self.options.num_workers,
        )

    def methods(self, precision: Precision) -> Iterator[tuple[Row, Predictions]]:
        """Every row of METHODS whose parts are trained and there."""
        how = self.how
        fast = {
            name: accelerate(model, precision=precision, compile=how.compile) for name, model in self.models.items()
        }
        for name, whose, look in METHODS:
            if lacking := self.meta.lacking(look):
                log.info("%s: left out, for after %s the %s is not trained", name, self.meta.stage, lacking[0])
            elif whose in fast:
                predicted = evaluate(fast[whose], self.loader, patches=look, seed=self.config.seed)
                form = _form(precision, compiled=how.compile)
                method = f"{name}, {form}" if form else name
                yield self._row(method, look, look, precision, predicted, fast[whose], compiled=how.compile), predicted

    def probes(self) -> Iterator[tuple[Row, Predictions]]:
        """Linear classifiers on each network's features, in float32."""
        fast, training = accelerate(self.models["own"]), self._loader("train")
        for network, look in PROBES:
            predicted = linear_probe(fast, training, self.loader, network)
            method = f"whole frames: probe on {network}"
            yield self._row(method, f"probe_{network}", look, "float32", predicted, fast, compiled=False), predicted

    def _row(
        self,
        method: str,
        patches: str,
        look: PatchSource,
        precision: Precision,
        predicted: Predictions,
        fast: AdaFocus,
        *,
        compiled: bool,
    ) -> Row:
        """Accuracy of what was predicted, beside compute, time and memory of the model that did."""
        scores, online, sample = predicted.metrics(), predicted.online(), self.sample
        gflops, parameters = _cost(self.models["own"], look, self.info.num_classes)
        shares = self.models["own"].is_causal
        prefixes = [gflops * (t + 1) / len(online) if shares else gflops for t in range(len(online))]
        log.info("%s: top-1 %.1f %%", method, scores["top1"])
        return Row(
            method=method,
            patches=patches,
            precision=precision,
            compiled=compiled,
            top1=scores["top1"],
            top5=scores["top5"],
            map=scores["map"],
            hit_rate=scores.get("hit_rate"),
            gflops=gflops,
            parameters=parameters,
            videos_per_s=len(sample.clip_ids) / profiling.seconds(fast, sample, look),
            latency_ms=1000 * profiling.seconds(fast, profiling.first_clip(sample), look),
            memory_mb=None if compiled else profiling.peak_bytes(fast, sample, look) / 1e6,
            online=[
                {"frames": t + 1, "gflops": cost, **values}
                for t, (cost, values) in enumerate(zip(prefixes, online, strict=True))
            ],
        )

    def facts(self) -> dict[str, Any]:
        """What was measured, on what."""
        model, num_classes = self.models["own"], self.info.num_classes
        looks: Patches = "random" if self.meta.lacking("policy") else "policy"
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
            **{
                f"gflops.{part}": value
                for part, value in multiply_adds.count(self.config, num_classes, patches=looks).items()
            },
        }


def _check(meta: Meta, folder: Path, class_names: list[str], shards: str) -> None:
    if lacking := meta.lacking("random"):
        raise UserError(
            f"{folder} is of stage {meta.stage}, after which its {lacking[0]} still holds initial weights, so "
            "that there is nothing to measure: take a checkpoint of stage warmup, ppo or finetune"
        )
    if meta.info["class_names"] != class_names:
        raise UserError(
            f"{folder} knows other classes than {without_secrets(shards)}: it was trained on {meta.info['name']}"
        )


def _warmup_of(meta: Meta, runs: Path) -> Path | None:
    """Where the warm-up lies that a later checkpoint came from; None if it is gone or was made elsewhere."""
    if not meta.key or meta.stage == "warmup":
        return None
    name = next((name for name in meta.stages if name.startswith("warmup-")), "")
    try:  # records of old name only their own stage
        folder = runs / name if name else stage_folder("warmup", from_flat(meta.config), runs, meta.digest)
    except UserError as error:
        log.info("the warm-up that it came from cannot be told (%s): its row is left out", error)
        return None
    if (folder / checkpoint.META).exists():
        return folder
    log.info("%s is gone: its row is left out", folder)
    return None


def _form(precision: Precision, *, compiled: bool) -> str:
    """In words, what was done to the networks; empty for nothing."""
    return ", ".join([*([precision] if precision != "float32" else []), *(["compiled"] if compiled else [])])


def _cost(model: AdaFocus, look: PatchSource, num_classes: int) -> tuple[float, int]:
    """GFLOPs per video and parameters, those of batch norms included, of what a method uses."""
    parts = multiply_adds.parameters(model)
    if look == "whole":
        return multiply_adds.count_whole(model), parts["focuser"]
    if look == "glancer":
        return multiply_adds.count(model.config, num_classes, patches=None)["total"], parts["glancer"]
    unused = 0 if look == "policy" else parts["policy"]
    return multiply_adds.count(model.config, num_classes, patches=look)["total"], parts["total"] - unused
