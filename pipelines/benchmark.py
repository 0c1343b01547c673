"""A finished model measured: accuracy by where it looks, compute, speed."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from adafocus import checkpoint, flops
from adafocus.clips import evaluation_split
from adafocus.config import Config, from_flat
from adafocus.distributed import pick_device
from adafocus.evaluate import Look, Predictions, evaluate
from adafocus.infer import accelerate
from adafocus.loader import Batch, ClipLoader
from adafocus.models.adafocus import AdaFocus
from adafocus.stages.trainer import Options, stage_folder
from pipelines.train import Places
from preprocessing.schema import DatasetInfo, UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result table. Percentages, GFLOPs (multiply-adds) per video, videos per second."""

    method: str
    patches: str
    top1: float
    top5: float
    map: float
    hit_rate: float | None
    gflops: float
    videos_per_s: float
    latency_ms: float


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


def benchmark(folder: Path, places: Places, options: Options, batch_size: int = 32) -> Benchmark:
    """Measure a finished trial on its evaluation split. Raises UserError for shards that it was not trained on."""
    model, meta = checkpoint.load_model(folder)
    config = from_flat(meta.config)
    info, digest = ClipLoader.describe(places.shards)
    if meta.info["class_names"] != list(info.class_names):
        raise UserError(f"{folder} knows other classes than {places.shards}: it was trained on {meta.info['name']}")
    split = evaluation_split(places.shards)
    loader = ClipLoader(
        places.shards,
        split,
        config.data,
        batch_size=batch_size,
        train=False,
        num_workers=options.num_workers,
        independent_focus=config.model.family == "trimmed",
    )
    models = {"finetune": model}
    warmup = stage_folder("warmup", config, places.runs, meta.digest)
    if (warmup / checkpoint.META).exists():
        models["warmup"] = checkpoint.load_model(warmup)[0]
    else:
        log.info("%s is gone: its row is left out", warmup)
    device = pick_device(options.device)
    fast = {name: accelerate(each.to(device)) for name, each in models.items()}
    rows, predictions = [], {}
    sample = next(iter(loader)).to(device)
    for name, stage, patches in METHODS:
        if stage not in fast:
            continue
        predicted = evaluate(fast[stage], loader, patches=patches, seed=config.seed)
        predictions[f"{stage}-{patches}"] = predicted
        rows.append(_row(name, patches, predicted, config, info, fast[stage], sample))
        log.info("%s: top-1 %.1f %%", name, rows[-1].top1)
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
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    return Benchmark(rows, predictions, facts)


def _row(
    name: str,
    patches: Look,
    predicted: Predictions,
    config: Config,
    info: DatasetInfo,
    model: AdaFocus,
    sample: Batch,
) -> Row:
    scores = predicted.metrics()
    looks = None if patches == "glancer" else patches
    return Row(
        method=name,
        patches=patches,
        top1=scores["top1"],
        top5=scores["top5"],
        map=scores["map"],
        hit_rate=scores.get("hit_rate"),
        gflops=flops.count(config, info.num_classes, patches=looks)["total"],  # type: ignore[arg-type]
        videos_per_s=len(sample.clip_ids) / _seconds(model, sample, patches),
        latency_ms=1000 * _seconds(model, _first(sample), patches),
    )


def _first(batch: Batch) -> Batch:
    boxes = None if batch.boxes_BT4 is None else batch.boxes_BT4[:1]
    return replace(
        batch,
        glance_BTCHW=batch.glance_BTCHW[:1],
        focus_BTCHW=batch.focus_BTCHW[:1],
        labels_BL=batch.labels_BL[:1],
        clip_ids=batch.clip_ids[:1],
        boxes_BT4=boxes,
    )


@torch.inference_mode()
def _seconds(model: AdaFocus, batch: Batch, patches: Look, repeats: int = 5) -> float:
    """Median time of a batch that is in memory already: frames in, prediction out."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        if patches == "glancer":
            result = model.glance(batch.glance_BTCHW).logits_BTK
        else:
            result = model(batch.glance_BTCHW, batch.focus_BTCHW, patches).prediction_BK
        result.sum().item()  # waits for the device
        times.append(time.perf_counter() - started)
    return sorted(times[1:])[repeats // 2]
