"""Collects a report from MLflow alone: no number comes from anywhere else, and what was not measured is named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipelines.paths import Places
from pipelines.recipes import RECIPES
from pipelines.reporting.benchmark_result import BenchmarkResult
from pipelines.reporting.epochs import EpochTimes
from pipelines.reporting.frontier_result import FRONTIER_TABLE, FrontierResult
from pipelines.reporting.published import published_on
from pipelines.reporting.report import Report, Section, SweepSummary
from pipelines.reporting.sweep_data import sweep_data
from pipelines.tracking.client import Tracker
from pipelines.tracking.metric_names import IN_WORDS
from pipelines.tracking.records import SweepRecord, TrialRecord
from pipelines.tracking.saved_views import view_addresses
from pipelines.tracking.stale import STALE_AFTER_MIN, mark_stale
from preprocessing.schema import UserError

PAPER_DATASETS = ("activitynet", "fcvid", "minikinetics", "ssv1", "ssv2")
"""Data sets of the paper, in its order."""


def collect_report(places: Places, sweep: str | None = None, stale_after_min: float = STALE_AFTER_MIN) -> Report:
    """Read the store: all of it, or one sweep. Raises UserError if there is nothing to report."""
    tracker = Tracker.at(places)
    identity = {} if sweep is None else {"sweep": sweep}
    trials, sweeps = mark_stale(tracker, tracker.trials(**identity), tracker.sweeps(**identity), stale_after_min)
    measured = None if sweep is None else {trial.run_id for trial in trials}
    benchmarks, broken = read_benchmarks(tracker, measured)
    if not benchmarks and not sweeps and not trials:
        subject = f"sweep {sweep!r}" if sweep is not None else "trial yet"
        raise UserError(f"{places.store} holds no {subject}; `adafocus train` or `adafocus tune` makes one")
    frontiers = _read_frontiers(tracker) if sweep is None else []
    summaries = [
        summarise(tracker, each, [trial for trial in trials if trial.parent_id == each.run_id]) for each in sweeps
    ]
    datasets = dict.fromkeys(PAPER_DATASETS if sweep is None else ())
    datasets |= dict.fromkeys([*(each.facts["dataset"] for each in benchmarks), *(each.dataset for each in summaries)])
    sections = []
    for dataset in datasets:
        own = [each for each in benchmarks if each.facts["dataset"] == dataset]
        own_sweeps = [each for each in summaries if each.dataset == dataset]
        missing = _missing(dataset, own, own_sweeps) if sweep is None else []
        compared = [each for each in frontiers if each.dataset == dataset]
        views = view_addresses(tracker, dataset)
        sections.append(Section(dataset, own, own_sweeps, compared, missing, views))
    sections.sort(key=lambda section: not (section.benchmarks or section.sweeps))
    unfinished = [trial for trial in trials if not trial.sweep and trial.outcome != "finished"]
    return Report(places.store, sections, unfinished, broken)


def read_benchmarks(tracker: Tracker, trials: set[str] | None) -> tuple[list[BenchmarkResult], list[str]]:
    """Results of the benchmarks of these trials (None: of all), the best first, and in words those that have none."""
    results, broken = [], []
    for run in tracker.benchmarks():
        if trials is not None and run.trial not in trials:
            continue
        table: dict[str, Any] | None = tracker.read_json(run.run_id, "table.json")
        if table is None:
            broken.append(f"{run.name}: it left no table; was it killed? Measure again")
        else:
            found = (table["facts"], table["rows"], table.get("online", {}), table.get("exits", []))
            results.append(BenchmarkResult(run.measured, run.run_id, run.trial, *found))
    return sorted(results, key=lambda each: each.score, reverse=True), broken


def _read_frontiers(tracker: Tracker) -> list[FrontierResult]:
    """Comparisons of methods that have ended, the newest first."""
    tables = ((run.run_id, tracker.read_json(run.run_id, FRONTIER_TABLE)) for run in tracker.frontiers())
    return [FrontierResult.read(run_id, table) for run_id, table in tables if table is not None]


def summarise(tracker: Tracker, sweep: SweepRecord, trials: Sequence[TrialRecord]) -> SweepSummary:
    """All about a sweep."""
    times = EpochTimes(tracker, (sweep, *trials))
    metrics = {trial.metric for trial in trials if trial.metric}
    metric = IN_WORDS[metrics.pop()] if metrics else "score"
    return SweepSummary(
        name=sweep.sweep,
        dataset=sweep.dataset,
        recipe=sweep.recipe,
        metric=metric,
        status=sweep.status.lower(),
        space=sweep.space,
        trials=sorted(trials, key=lambda trial: -(trial.score if trial.score is not None else -1)),
        stage_hours=times.stage_hours(),
        hours_without_sharing=sum(sum(times.of(trial.run_id).values()) for trial in trials) / 3600,
        reuse=sweep.reuse,
        page=sweep_data(tracker, sweep, trials, times, metric),
    )


def _missing(dataset: str, benchmarks: list[BenchmarkResult], sweeps: list[SweepSummary]) -> list[str]:
    """What a reader may look for and does not find, in words."""
    measured = {each.facts.get("recipe") for each in benchmarks}
    missing = []
    if dataset in PAPER_DATASETS:
        missing += [
            f"{recipe}: not run here: needs the data set and GPUs (docs/datasets/{dataset}.md)"
            for recipe in RECIPES
            if recipe.startswith(f"{dataset}-") and recipe not in measured
        ]
        if not any(row.family == "AdaFocus" for row in published_on(dataset)):
            missing.append("the paper's own figure: none that is printed in a table or can be read off a plot")
    trials = {each.trial for each in benchmarks}
    for sweep in sweeps:
        if not trials & {trial.run_id for trial in sweep.trials}:
            missing.append(f"sweep {sweep.name}: no trial is measured yet (`adafocus benchmark --sweep {sweep.name}`)")
    return missing
