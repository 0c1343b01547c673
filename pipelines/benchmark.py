"""A finished model measured: accuracy by where it looks, compute, speed."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from adafocus import checkpoint, flops
from adafocus.clips import evaluation_split
from adafocus.config import Precision, from_flat
from adafocus.distributed import pick_device
from adafocus.evaluate import Look, Predictions, evaluate
from adafocus.infer import accelerate
from adafocus.loader import Batch, ClipLoader
from adafocus.models.adafocus import AdaFocus
from adafocus.probe import linear_probe
from adafocus.stages.trainer import Options, stage_folder
from pipelines import measure
from pipelines.train import Places
from preprocessing.schema import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result table. Percentages, GFLOPs (multiply-adds) per video, videos per second."""

    method: str
    patches: str
    precision: Precision
    """Of the image networks; policy and classifier are in float32."""
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
    memory_mb: float
    """Most that the batch and what is made of it take at one time; beside the weights."""
    online: list[dict[str, float]]
    """frames, gflops (where a prefix costs its share), map, top1, top5 after each frame."""

    def key(self) -> str:
        """What names the row's metrics."""
        name = "warmup_random" if "warm-up" in self.method else self.patches
        return name if self.precision == "float32" else f"{name}_{self.precision}"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What was measured, on what."""

    rows: list[Row]
    predictions: dict[str, Predictions]
    facts: dict[str, Any]

    def table(self) -> list[dict[str, Any]]:
        """The rows as plain values."""
        return [asdict(row) for row in self.rows]


METHODS: tuple[tuple[str, str, Look], ...] = (
    ("policy (AdaFocus)", "finetune", "policy"),
    ("random, same weights", "finetune", "random"),
    ("centre, same weights", "finetune", "centre"),
    ("random, warm-up weights", "warmup", "random"),
    ("none: glancer alone", "finetune", "glancer"),
)
"""Name, stage whose weights are used, where the focuser looks."""

PROBES: tuple[tuple[Literal["glancer", "focuser"], Look], ...] = (("glancer", "glancer"), ("focuser", "whole"))
"""Networks on whose features of whole frames a linear classifier is fitted, and what they look at."""


def parse_precisions(text: str) -> tuple[Precision, ...]:
    """`float32,bf16` -> both. Raises UserError for others."""
    known = {name: name for name in get_args(Precision)}
    wanted = tuple(dict.fromkeys(text.split(",")))
    for name in wanted:
        if name not in known:
            raise UserError(f"--precision {text!r}: {name!r} is none of {', '.join(known)}")
    return tuple(known[name] for name in wanted)


def find_checkpoint(
    places: Places, *, run: str | None, sweep: str | None, folder: Path | None
) -> tuple[Path, str, str]:
    """(folder, MLflow run id, name) of the trial to measure: by run (id or name), best of a sweep, or by folder.

    Raises UserError if there is none.
    """
    if folder:
        return folder, "", folder.name
    tracker = places.tracker()
    trials = tracker.find("trial", **({"sweep": sweep} if sweep else {}))
    if run:
        trials = [trial for trial in trials if run in (trial.info.run_id, trial.info.run_name)]
    trials = [trial for trial in trials if "adafocus.checkpoint" in trial.data.tags]
    if not trials:
        what = f"run {run!r}" if run else f"finished trial in sweep {sweep!r}"
        raise UserError(f"there is no {what} in {places.tracking_uri}; `adafocus train` or `adafocus tune` makes one")
    best = max(trials, key=lambda trial: trial.data.metrics[f"finetune/val_{trial.data.tags['adafocus.metric']}"])
    name = f"{best.data.tags['adafocus.sweep']} {best.info.run_name}".strip()
    return places.runs / best.data.tags["adafocus.checkpoint"], best.info.run_id, name


def benchmark(
    folder: Path,
    places: Places,
    options: Options,
    *,
    batch_size: int = 32,
    precisions: tuple[Precision, ...] = ("float32",),
    probe: bool = False,
) -> Benchmark:
    """Measure a finished trial on its evaluation split, in each precision; `probe` adds linear classifiers.

    Raises UserError for shards that it was not trained on.
    """
    model, meta = checkpoint.load_model(folder)
    config = from_flat(meta.config)
    info, digest = ClipLoader.describe(places.shards)
    if meta.info["class_names"] != list(info.class_names):
        raise UserError(f"{folder} knows other classes than {places.shards}: it was trained on {meta.info['name']}")

    def loader_of(split: str) -> ClipLoader:
        return ClipLoader(
            places.shards,
            split,
            config.data,
            batch_size=batch_size,
            train=False,
            num_workers=options.num_workers,
            independent_focus=config.model.family == "trimmed",
        )

    split = evaluation_split(places.shards)
    loader, device = loader_of(split), pick_device(options.device)
    models = {"finetune": model.to(device)}
    warmup = stage_folder("warmup", config, places.runs, meta.digest)
    if (warmup / checkpoint.META).exists():
        models["warmup"] = checkpoint.load_model(warmup)[0].to(device)
    else:
        log.info("%s is gone: its row is left out", warmup)
    rows, predictions = [], {}
    sample = next(iter(loader)).to(device)

    def add(name: str, label: str, look: Look, precision: Precision, fast: AdaFocus, predicted: Predictions) -> None:
        cost = _cost(model, look, info.num_classes)
        rows.append(_row(name, label, look, precision, predicted, fast, sample, cost))
        predictions[rows[-1].key()] = predicted
        log.info("%s, %s: top-1 %.1f %%", name, precision, rows[-1].top1)

    for precision in precisions:
        fast = {name: accelerate(each, precision=precision) for name, each in models.items()}
        for name, stage, patches in METHODS:
            if stage in fast:
                predicted = evaluate(fast[stage], loader, patches=patches, seed=config.seed)
                add(name, patches, patches, precision, fast[stage], predicted)
    if probe:
        fast_model, training = accelerate(models["finetune"]), loader_of("train")
        for network, look in PROBES:
            predicted = linear_probe(fast_model, training, loader, network)
            add(f"whole frames: probe on {network}", f"probe_{network}", look, "float32", fast_model, predicted)
    facts = {
        "dataset": info.name,
        "digest": digest,
        "split": split,
        "clips": len(loader.clip_ids),
        "metric": info.metric,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "batch_size": len(sample.clip_ids),
        "checkpoint": folder.name,
        "patch_size": config.model.patch_size,
        **{f"parameters.{part}": value for part, value in flops.parameters(model).items()},
        **{f"gflops.{part}": value for part, value in flops.count(config, info.num_classes).items()},
    }
    return Benchmark(rows, predictions, facts)


def _row(
    name: str,
    label: str,
    look: Look,
    precision: Precision,
    predicted: Predictions,
    model: AdaFocus,
    sample: Batch,
    cost: tuple[float, int],
) -> Row:
    scores, online = predicted.metrics(), predicted.online()
    gflops, parameters = cost
    shares = model.config.model.family == "untrimmed"
    prefixes = [gflops * (t + 1) / len(online) if shares else gflops for t in range(len(online))]
    return Row(
        method=name if precision == "float32" else f"{name}, {precision}",
        patches=label,
        precision=precision,
        top1=scores["top1"],
        top5=scores["top5"],
        map=scores["map"],
        hit_rate=scores.get("hit_rate"),
        gflops=gflops,
        parameters=parameters,
        videos_per_s=len(sample.clip_ids) / measure.seconds(model, sample, look),
        latency_ms=1000 * measure.seconds(model, measure.first_clip(sample), look),
        memory_mb=measure.peak_bytes(model, sample, look) / 1e6,
        online=[
            {"frames": t + 1, "gflops": cost, **values}
            for t, (cost, values) in enumerate(zip(prefixes, online, strict=True))
        ],
    )


def _cost(model: AdaFocus, look: Look, num_classes: int) -> tuple[float, int]:
    """GFLOPs per video and parameters, those of batch norms included, of what a method uses."""
    parts = flops.parameters(model)
    if look == "whole":
        return flops.count_whole(model), parts["focuser"]
    if look == "glancer":
        return flops.count(model.config, num_classes, patches=None)["total"], parts["glancer"]
    unused = 0 if look == "policy" else parts["policy"]
    return flops.count(model.config, num_classes, patches=look)["total"], parts["total"] - unused
