"""What is logged of a benchmark: a run of its own with numbers, predictions and pictures, linked with its trial,
and a version of the model in the registry."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
from matplotlib.figure import Figure

from adafocus import checkpoint
from adafocus.config.overrides import flatten, from_flat
from adafocus.data.clip_table import evaluation_split
from adafocus.evaluation import metrics
from pipelines.benchmarks.benchmark import Measurement
from pipelines.paths import Places
from pipelines.reporting.benchmark_result import BenchmarkResult
from pipelines.reporting.published import published_on
from pipelines.reporting.run_notes import benchmark_note
from pipelines.tracking.client import Tracker
from pipelines.tracking.metric_names import IN_WORDS, SCORES
from pipelines.tracking.models.checkpoints import SelectedCheckpoint
from pipelines.tracking.models.logged_model import link_measured, log_scores
from pipelines.tracking.models.registry import MeasuredModel, register
from pipelines.tracking.run import Run
from pipelines.tracking.saved_views import benchmarks_view, save_view
from pipelines.tracking.score import SCORE
from pipelines.training.trial_logger import MODEL
from pipelines.visualize.charts.class_charts import class_chart, confusion_chart
from pipelines.visualize.charts.result_charts import ResultPoint, compute_chart, online_chart
from pipelines.visualize.patch_strips import save_strips
from preprocessing.schema import DatasetInfo
from preprocessing.shards.index import read_metadata

Online = dict[str, list[dict[str, float]]]
"""By a row's key, scores and compute after 1..T frames."""


def log_benchmark(measurement: Measurement, selected: SelectedCheckpoint, places: Places) -> Run:
    """Log a benchmark as an MLflow run of its own, linked with the trial that it measured (if it was one), and register
    the checkpoint if a recipe made it. The same measured again on the same machine goes into the same run."""
    dataset, tracker = read_metadata(places.shards), Tracker.at(places, patient=True)
    trial = tracker.open(selected.run_id) if selected.run_id else None
    recipe = trial.param("recipe") if trial else ""
    facts = {**measurement.facts, **({"recipe": recipe} if recipe else {})}
    split, usual = str(facts["split"]), evaluation_split(places.shards)
    name = f"benchmark {selected.name}" if split == usual else f"benchmark {selected.name}, split {split}"
    run = tracker.run(dataset.info.name, "benchmark", name, **_identity(measurement, selected))
    run.log_params({**flatten(from_flat(checkpoint.read_meta(selected.folder).config)), **facts})
    run.log_dataset(dataset.info.name, dataset.digest, places.shards, "evaluation")
    online = _online(measurement)
    _log_numbers(run, measurement, online)
    exits = [asdict(point) for point in measurement.exits]
    table = {"facts": facts, "rows": measurement.table(), "online": online, "exits": exits}
    run.client.log_dict(run.run_id, table, "table.json")
    _log_predictions(run, measurement)
    _log_pictures(run, measurement, selected, places, dataset.info, online)
    model_id = trial.logged_model if trial else ""
    link_measured(run, model_id)
    log_scores(run, model_id, _headline(measurement, dataset.info.metric), dataset.info.name, dataset.digest)
    if trial:
        trial.add_to_description(f"Measured by {run.link}.")
        if split == usual:
            trial.client.log_dict(trial.run_id, table, "table.json")
    else:
        run.log_artifact(selected.folder, MODEL)
    if trial and recipe and split == usual:  # models are compared by the same clips
        about = f"Trained by {trial.link}, measured by {run.link}."
        metric = dataset.info.metric
        score = getattr(measurement.rows[0], metric)
        model = MeasuredModel(recipe, trial.run_id, MODEL, dataset.digest, metric, score, about, model_id)
        run.set_model(register(tracker, model))
    describe_benchmark(run, selected, measurement, places)
    run.finish()
    return run


def result_of(measurement: Measurement, selected: SelectedCheckpoint, run: Run) -> BenchmarkResult:
    """What a benchmark that was logged as `run` has found."""
    trial, exits = selected.run_id or selected.folder.name, [asdict(point) for point in measurement.exits]
    return BenchmarkResult(selected.name, run.run_id, trial, measurement.facts, measurement.table(), {}, exits)


def describe_benchmark(run: Run, selected: SelectedCheckpoint, measurement: Measurement, places: Places) -> None:
    """Write the run's description, with the artifacts that it has by then; save the view that compares benchmarks."""
    tracker, result = Tracker.at(places, patient=True), result_of(measurement, selected, run)
    subject = f"the trial {tracker.open(selected.run_id).link}" if selected.run_id else f"`{selected.folder.name}`"
    view = save_view(tracker, run.experiment_id, benchmarks_view())
    run.set_description(benchmark_note(result, subject, run.artifact_names(), view))


def _headline(measurement: Measurement, metric: str) -> dict[str, float]:
    """The first row's numbers under names that are the same in all benchmarks, so that MLflow compares them."""
    first, split = measurement.rows[0], measurement.facts["split"]
    scores = {f"{split}_{name}": getattr(first, name, None) for name in SCORES}
    costs = {"gflops": first.gflops, "videos_per_s": first.videos_per_s, "latency_ms": first.latency_ms}
    known = {name: value for name, value in scores.items() if value is not None}
    return {SCORE: getattr(first, metric), **costs, **known}


def _identity(measurement: Measurement, selected: SelectedCheckpoint) -> dict[str, str]:
    """What makes it this benchmark: the model, and on what and how it was measured."""
    conditions = {key: str(measurement.facts[key]) for key in ("digest", "split", "device", "threads", "batch_size")}
    forms = (f"{row.precision} compiled" if row.compiled else row.precision for row in measurement.rows)
    return {
        "trial": selected.run_id or selected.folder.name,
        "checkpoint": selected.folder.name,
        **conditions,
        "precisions": ",".join(dict.fromkeys(forms)),
    }


def _online(measurement: Measurement) -> Online:
    """The rows' scores while a clip is watched; none for clips that are seen as a whole."""
    first = measurement.rows[0]
    rows = [row for row in measurement.rows if row.precision == first.precision and len(row.online) > 1]
    return {row.key(): row.online for row in rows if len({point["gflops"] for point in row.online}) > 1}


def _log_numbers(run: Run, measurement: Measurement, online: Online) -> None:
    """Log the rows, the scores after each frame with the frames as the step, and those of early exit with the budget in
    percent as the step."""
    for row in measurement.rows:
        numbers = {key: value for key, value in asdict(row).items() if isinstance(value, float)}
        run.log_metrics({f"bench/{row.key()}/{key}": value for key, value in numbers.items()})
    for key, points in online.items():
        for point in points:
            scores = {f"online/{key}/{score}": point[score] for score in ("top1", "map")}
            run.log_metrics(scores, step=int(point["frames"]))
    for exit_point in measurement.exits:
        numbers = {key: value for key, value in asdict(exit_point).items() if key != "percent"}
        run.log_metrics({f"exit/{key}": value for key, value in numbers.items()}, step=exit_point.percent)


def _log_predictions(run: Run, measurement: Measurement) -> None:
    """Log the predictions of each row as a Parquet file."""
    with tempfile.TemporaryDirectory() as temporary:
        for key, predictions in measurement.predictions.items():
            path = Path(temporary) / f"{key}.parquet"
            pq.write_table(predictions.table(), path)
            run.log_artifact(path, "predictions")


def _log_pictures(
    run: Run, measurement: Measurement, selected: SelectedCheckpoint, places: Places, info: DatasetInfo, online: Online
) -> None:
    """Log the charts, and strips of the policy's patches if there is a policy."""
    if not checkpoint.read_meta(selected.folder).lacking("policy"):
        with tempfile.TemporaryDirectory() as temporary:
            strips = Path(temporary) / "patches.png"
            save_strips(selected.folder, places.shards, strips)
            run.log_artifact(strips)
    for name, chart in _charts(measurement, info, online).items():
        run.client.log_figure(run.run_id, chart, f"{name}.png")


def _charts(measurement: Measurement, info: DatasetInfo, online: Online) -> dict[str, Figure]:
    """Charts of the first row's predictions, and of accuracy over frames and over compute, by name."""
    predictions = measurement.predictions[measurement.rows[0].key()]
    logits_NK, labels_NL = predictions.logits_NTK[:, -1], predictions.labels_NL
    first_N, guesses_N = labels_NL[:, 0].numpy(), logits_NK.argmax(1).numpy()
    counts_K = metrics.multi_hot(labels_NL, info.num_classes).sum(0).numpy()
    if info.metric == "map":
        values_K, name = metrics.class_precision(logits_NK, labels_NL).numpy(), "average precision"
    else:
        values_K, name = metrics.class_accuracy(logits_NK, labels_NL).numpy(), "accuracy"
    metric = IN_WORDS[info.metric]
    charts = {
        "confusion": confusion_chart(first_N, guesses_N, info.class_names),
        "classes": class_chart(values_K, counts_K, info.class_names, name),
        "compute": compute_chart(
            [ResultPoint(row.method, row.gflops, getattr(row, info.metric)) for row in measurement.rows],
            [ResultPoint(row.method, row.gflops, row.accuracy, row.family) for row in published_on(info.name)],
            metric,
            [[ResultPoint("", point["gflops"], point[info.metric]) for point in points] for points in online.values()],
            [ResultPoint("", point.gflops, getattr(point, info.metric)) for point in measurement.exits],
        ),
    }
    if online:
        curves = {key: [point[info.metric] for point in points] for key, points in online.items()}
        charts["online"] = online_chart(curves, metric)
    return charts
