"""What a trial and a benchmark leave in MLflow: what they are, what they made, what can be recomputed."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import torch

from adafocus import checkpoint
from adafocus.config.overrides import flatten, from_flat
from adafocus.config.schema import Config
from adafocus.devices import pick_device
from adafocus.evaluation import metrics
from adafocus.methods.identity import stage_folders
from pipelines.reporting.published import rows_of
from pipelines.tracking import registry
from pipelines.tracking.client import Tracker
from pipelines.tracking.metric_names import IN_WORDS
from pipelines.tracking.registry import Made
from pipelines.tracking.run import Run
from pipelines.visualize import class_charts, result_charts
from pipelines.visualize.figure import save_png
from pipelines.visualize.patch_strips import save_strips
from pipelines.visualize.result_charts import ResultPoint
from preprocessing.schema import DatasetInfo
from preprocessing.shards.index import read_metadata

if TYPE_CHECKING:
    from pipelines.benchmarks.benchmark import Measurement
    from pipelines.benchmarks.select import Chosen
    from pipelines.paths import Places

MODEL = "model"
"""Folder of a run's artifacts that holds weights and meta.json."""


def describe(run: Run, config: Config, places: Places, recipe: str, device: str = "auto") -> None:
    """Log what a trial is before it starts: configuration, device and data set."""
    dataset = read_metadata(places.shards)
    run.params({**flatten(config), "recipe": recipe, "device": device_name(device)})
    run.set_stages(stage_folders(config, places.runs, dataset.digest))
    run.dataset(dataset.info, dataset.digest, places.shards)


def device_name(wanted: str) -> str:
    """The device that `wanted` stands for, with its maker's name if it is a GPU."""
    device = pick_device(wanted)
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def complete(run: Run, folder: Path, places: Places) -> None:
    """Log what a trial made: weights, meta.json, the reward's curve, and a picture of where it looks."""
    run.artifact(folder, MODEL)
    with tempfile.TemporaryDirectory() as temporary:
        strips = Path(temporary) / "patches.png"
        save_strips(folder, places.shards, strips)
        run.artifact(strips)
        rewards = run.curve("ppo/reward")
        if rewards:
            names = sorted(key for key in run.metric_names() if key.startswith("ppo/reward_t"))
            by_time: dict[int, list[float]] = {step: [] for step in rewards}
            for name in names:
                for step, value in run.curve(name).items():
                    by_time[step].append(value)
            chart = result_charts.reward_chart(list(rewards), list(rewards.values()), by_time)
            run.artifact(save_png(chart, Path(temporary) / "reward.png"))
    meta = checkpoint.read_meta(folder)
    run.set_result(folder, meta.digest, meta.info["metric"])


def track(result: Measurement, chosen: Chosen, places: Places) -> Run:
    """Log a benchmark as an MLflow run of its own, linked with the trial that it measured (if it was one), and register
    the checkpoint if a recipe made it. The same measured again on the same machine goes into the same run."""
    folder, trial = chosen.folder, chosen.run_id
    dataset = read_metadata(places.shards)
    meta, tracker = checkpoint.read_meta(folder), Tracker.at(places)
    config = from_flat(meta.config)
    where = {key: str(result.facts[key]) for key in ("digest", "device", "threads", "batch_size")}
    forms = (f"{row.precision} compiled" if row.compiled else row.precision for row in result.rows)
    precisions = ",".join(dict.fromkeys(forms))
    identity = {"trial": trial or folder.name, "checkpoint": folder.name, **where, "precisions": precisions}
    run = tracker.run(dataset.info.name, "benchmark", f"benchmark {chosen.name}", **identity)
    measured = tracker.open(trial) if trial else None
    recipe = measured.param("recipe") if measured else ""
    facts = {**result.facts, **({"recipe": recipe} if recipe else {})}
    run.params({**flatten(config), **facts})
    run.dataset(dataset.info, dataset.digest, places.shards, "evaluation")
    for row in result.rows:
        values = {key: value for key, value in asdict(row).items() if isinstance(value, float)}
        run.metrics({f"bench/{row.key()}/{key}": value for key, value in values.items()})
    online = _online(result, config)
    for key, points in online.items():
        for point in points:
            values = {f"online/{key}/{score}": point[score] for score in ("top1", "map")}
            run.metrics(values, step=int(point["frames"]))
    table = {"facts": facts, "rows": result.table(), "online": online}
    run.client.log_dict(run.run_id, table, "table.json")
    with tempfile.TemporaryDirectory() as temporary:
        for key, predicted in result.predictions.items():
            path = Path(temporary) / f"{key}.parquet"
            pq.write_table(predicted.table(), path)
            run.artifact(path, "predictions")
        if not meta.lacking("policy"):
            save_strips(folder, places.shards, Path(temporary) / "patches.png")
        _charts(result, dataset.info, online, Path(temporary))
        for path in sorted(Path(temporary).glob("*.png")):
            run.artifact(path)
    if measured:
        run.describe(f"Measures the trial {measured.link}.")
        measured.describe(f"Measured by {run.link}.")
        measured.client.log_dict(measured.run_id, table, "table.json")
    else:
        run.artifact(folder, MODEL)
    if measured and recipe:
        about = f"Trained by {measured.link}, measured by {run.link}."
        score = getattr(result.rows[0], dataset.info.metric)
        made = Made(recipe, trial, MODEL, dataset.digest, dataset.info.metric, score, about)
        run.set_model(registry.register(tracker, made))
    run.finish()
    return run


def _online(result: Measurement, config: Config) -> dict[str, list[dict[str, float]]]:
    """The rows' scores after 1..T frames, and their compute; none for clips that are seen as a whole."""
    shown = [row for row in result.rows if row.precision == result.rows[0].precision and len(row.online) > 1]
    return {row.key(): row.online for row in shown if len({point["gflops"] for point in row.online}) > 1}


def _charts(result: Measurement, info: DatasetInfo, online: dict[str, list[dict[str, float]]], folder: Path) -> None:
    """Write the pictures of the first row's predictions, and of accuracy over frames and over compute."""
    predicted = result.predictions[result.rows[0].key()]
    logits_NK, labels_NL = predicted.logits_NTK[:, -1], predicted.labels_NL
    first_N, guesses_N = labels_NL[:, 0].numpy(), logits_NK.argmax(1).numpy()
    save_png(class_charts.confusion_chart(first_N, guesses_N, info.class_names), folder / "confusion.png")
    counts_K = metrics.multi_hot(labels_NL, info.num_classes).sum(0).numpy()
    if info.metric == "map":
        values_K, name = metrics.class_precision(logits_NK, labels_NL).numpy(), "average precision"
    else:
        values_K, name = metrics.class_accuracy(logits_NK, labels_NL).numpy(), "accuracy"
    save_png(class_charts.class_chart(values_K, counts_K, info.class_names, name), folder / "classes.png")
    metric = IN_WORDS[info.metric]
    if online:
        curves = {key: [point[info.metric] for point in points] for key, points in online.items()}
        save_png(result_charts.online_chart(curves, metric), folder / "online.png")
    chart = result_charts.compute_chart(
        [ResultPoint(row.method, row.gflops, getattr(row, info.metric)) for row in result.rows],
        [ResultPoint(row.method, row.gflops, row.accuracy, row.family) for row in rows_of(info.name)],
        metric,
        [[ResultPoint("", point["gflops"], point[info.metric]) for point in points] for points in online.values()],
    )
    save_png(chart, folder / "compute.png")
