"""Results out of MLflow alone: what was measured beside what was published, sweeps, failures, times, what is missing.

Goes in: the tracking store; comes out: one `Report`, which is shown here on a terminal and written by `pages.py`.
No number comes from anywhere else: what was not measured is named as missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from adafocus.methods import find_method, stage_names
from pipelines.paths import Places
from pipelines.recipes.recipes import RECIPES
from pipelines.reporting.published import Published, published, rows_of
from pipelines.tracking.client import Tracker
from pipelines.tracking.metric_names import IN_WORDS
from pipelines.tracking.records import BenchmarkRecord, SweepRecord, TrialRecord
from preprocessing.schema import UserError

COLUMNS = (
    ("method", "patches", "{}"),
    ("top1", "top-1", "{:.1f}"),
    ("map", "mAP", "{:.1f}"),
    ("hit_rate", "hits", "{:.1f}"),
    ("gflops", "GFLOPs", "{:.3g}"),
    ("videos_per_s", "videos/s", "{:.0f}"),
    ("latency_ms", "ms", "{:.1f}"),
    ("memory_mb", "MB", "{:.0f}"),
)
"""Field, heading, format."""
LEGEND = (
    "top-1, mAP in percent; hits: percent of frames in which the patch holds the whole object; GFLOPs: multiply-adds "
    "(10^9) per video; ms: one video at a time; MB: most that a batch and what is made of it take, beside the weights"
)
PARTS = {"gflops": "GFLOPs of the first row by part", "parameters": "parameters in millions by part"}
BENCHMARKS = ("activitynet", "fcvid", "minikinetics", "ssv1", "ssv2")
"""Data sets of the paper, in its order."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One benchmark: facts and rows as they were logged."""

    name: str
    run_id: str
    trial: str
    """Run id of the trial that was measured; a folder's name if it was none."""
    facts: dict[str, Any]
    rows: list[dict[str, Any]]
    online: dict[str, list[dict[str, float]]]

    @property
    def score(self) -> float:
        """The first row's, which is the policy's if there is one, by the data set's metric, in percent."""
        return float(self.rows[0][self.facts["metric"]])

    @property
    def shown(self) -> str:
        """Its name, and the stage if it is not the last one."""
        last = find_method(self.facts.get("method", "adafocus")).last
        stage = self.facts.get("stage", last)
        return self.name if stage == last else f"{self.name}, after {stage}"

    @property
    def conditions(self) -> str:
        """On what it was measured, in words."""
        facts = self.facts
        count = facts.get("threads", 0) if facts["device"] == "cpu" else 0
        threads = f", {count} thread{'s' if count > 1 else ''}" if count else ""
        return (
            f"{facts['clips']} clips of split {facts['split']}, {facts['device']}{threads}, batch {facts['batch_size']}"
        )


@dataclass(frozen=True, slots=True)
class Texts:
    """Benchmarks under the same conditions as a table of texts: a block of rows each."""

    title: str
    headings: list[str]
    blocks: list[list[list[str]]]
    measured: list[Measured]

    @property
    def num_words(self) -> int:
        """Columns of words, before those of numbers."""
        return 1 + len(self.headings) - len(COLUMNS)


@dataclass(frozen=True, slots=True)
class SweepResult:
    """One sweep, its trials ranked by score."""

    name: str
    dataset: str
    recipe: str
    metric: str
    status: str
    space: dict[str, str]
    trials: list[TrialRecord]
    stage_hours: dict[str, float]
    """Training time by stage; an epoch that several trials share counts once."""
    alone_hours: float
    """The same if every trial had trained its stages for itself."""
    reuse: dict[str, float]
    """What the sweep itself logged of it, if it did."""

    @property
    def hours(self) -> float:
        """Training time of all stages."""
        return sum(self.stage_hours.values())

    @property
    def lost(self) -> list[TrialRecord]:
        """Trials that did not finish."""
        return [trial for trial in self.trials if trial.outcome != "finished"]


@dataclass(frozen=True, slots=True)
class Section:
    """All about one data set."""

    dataset: str
    measured: list[Measured] = field(default_factory=list)
    sweeps: list[SweepResult] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def published(self) -> tuple[Published, ...]:
        """All that others have published on this data set."""
        return rows_of(self.dataset)

    @property
    def compared(self) -> tuple[Published, ...]:
        """The same where there is something to compare it with, else the paper's own."""
        return tuple(row for row in self.published if self.measured or row.family == "AdaFocus")


@dataclass(frozen=True, slots=True)
class Report:
    """Everything, by data set: those with results first."""

    store: str
    sections: list[Section]
    single: list[TrialRecord]
    """Trials outside of sweeps that did not finish."""
    broken: list[str]
    """Benchmarks without a result, in words."""

    @property
    def measured(self) -> list[Measured]:
        """All benchmarks."""
        return [each for section in self.sections for each in section.measured]


def collect(places: Places, sweep: str | None = None) -> Report:
    """Read the store; of one sweep, or of everything. Raises UserError if there is nothing to report."""
    tracker = Tracker.at(places)
    identity = {} if sweep is None else {"sweep": sweep}
    trials, parents = tracker.trials(**identity), tracker.sweeps(**identity)
    wanted = {trial.run_id for trial in trials}
    measured, broken = [], []
    for run in tracker.benchmarks():
        if sweep is None or run.trial in wanted:
            table = tracker.read_json(run.run_id, "table.json")
            if table is None:
                broken.append(f"{run.name}: it left no table; was it killed? Measure again")
            else:
                measured.append(_measured(run, table))
    if not measured and not parents and not trials:
        what = f"sweep {sweep!r}" if sweep is not None else "trial yet"
        raise UserError(f"{places.store} holds no {what}; `adafocus train` or `adafocus tune` makes one")
    measured.sort(key=lambda each: each.score, reverse=True)
    sweeps = [_sweep(tracker, run, [trial for trial in trials if trial.parent_id == run.run_id]) for run in parents]
    names = dict.fromkeys([*(BENCHMARKS if sweep is None else ())])
    names |= dict.fromkeys([*(each.facts["dataset"] for each in measured), *(each.dataset for each in sweeps)])
    sections = []
    for name in names:
        here = [each for each in measured if each.facts["dataset"] == name]
        mine = [each for each in sweeps if each.dataset == name]
        sections.append(Section(name, here, mine, _missing(name, here, mine) if sweep is None else []))
    sections.sort(key=lambda section: not (section.measured or section.sweeps))
    lost = [trial for trial in trials if not trial.sweep and trial.outcome != "finished"]
    return Report(places.store, sections, lost, broken)


def _measured(run: BenchmarkRecord, table: Any) -> Measured:
    return Measured(run.measured, run.run_id, run.trial, table["facts"], table["rows"], table.get("online", {}))


def _sweep(tracker: Tracker, sweep: SweepRecord, trials: list[TrialRecord]) -> SweepResult:
    hours, alone = _stage_hours(tracker, sweep, trials)
    metrics = {trial.metric for trial in trials if trial.metric}
    return SweepResult(
        name=sweep.sweep,
        dataset=sweep.dataset,
        recipe=sweep.recipe,
        metric=IN_WORDS[metrics.pop()] if metrics else "score",
        status=sweep.status.lower(),
        space=sweep.space,
        trials=sorted(trials, key=lambda trial: -(trial.score if trial.score is not None else -1)),
        stage_hours=hours,
        alone_hours=alone,
        reuse=sweep.reuse,
    )


def _stage_hours(tracker: Tracker, sweep: SweepRecord, trials: Sequence[TrialRecord]) -> tuple[dict[str, float], float]:
    """Hours by stage, and in total if nothing were shared. A trial that found a stage finished logs its epochs again,
    with the time at which they were trained: those are the same ones."""
    once: dict[str, dict[tuple[int, int], float]] = {stage: {} for stage in stage_names()}
    alone = 0.0
    for run in (sweep, *trials):
        for stage in stage_names():
            if f"{stage}/seconds" in run.metrics:
                entries = tracker.open(run.run_id).entries(f"{stage}/seconds")
                once[stage] |= {(entry.step, entry.timestamp): entry.value for entry in entries}
                if run is not sweep:
                    alone += sum(entry.value for entry in entries) / 3600
    hours = {stage: sum(epochs.values()) / 3600 for stage, epochs in once.items() if epochs}
    return hours, alone


def _missing(dataset: str, measured: list[Measured], sweeps: list[SweepResult]) -> list[str]:
    """What a reader may look for and does not find, in plain words."""
    done = {each.facts.get("recipe") for each in measured}
    told = [
        f"{recipe}: not run here: needs the data set and GPUs (docs/datasets/{dataset}.md)"
        for recipe in RECIPES
        if dataset in BENCHMARKS and recipe.startswith(f"{dataset}-") and recipe not in done
    ]
    if dataset in BENCHMARKS and not any(row.family == "AdaFocus" for row in published()[dataset]):
        told.append("the paper's own figure: none that is printed in a table or can be read off a plot")
    trials = {each.trial for each in measured}
    for sweep in sweeps:
        if not trials & {trial.run_id for trial in sweep.trials}:
            told.append(f"sweep {sweep.name}: no trial is measured yet (`adafocus benchmark --sweep {sweep.name}`)")
    return told


def texts_of(results: Iterable[Measured]) -> list[Texts]:
    """A table for all that was measured on the same data set under the same conditions."""
    groups: dict[tuple[str, str], list[Measured]] = {}
    for result in results:
        groups.setdefault((result.facts["dataset"], result.conditions), []).append(result)
    headings, tables = [heading for _, heading, _ in COLUMNS], []
    for (dataset, conditions), group in groups.items():
        if len(group) == 1:
            title, blocks = f"{dataset}: {group[0].shown}, {conditions}", [[cells(row) for row in group[0].rows]]
            tables.append(Texts(title, headings, blocks, group))
        else:
            blocks = [[[each.shown, *cells(row)] for row in each.rows] for each in group]
            tables.append(Texts(f"{dataset}: {conditions}", ["trial", *headings], blocks, group))
    return tables


def show(results: list[Measured], console: Console) -> None:
    """Print the tables, and below that of a single benchmark what its parts cost."""
    for texts in texts_of(results):
        table = Table(title=texts.title, title_justify="left", caption=LEGEND, caption_justify="left")
        for number, (_, heading, _) in enumerate(COLUMNS):
            table.add_column(heading, justify="left" if number == 0 else "right", no_wrap=number > 0)
        for block in texts.blocks:
            if texts.num_words > 1:  # a terminal is too narrow for a column of names
                table.add_row(f"[bold]{escape(block[0][0])}[/bold]")
            for row in block:
                table.add_row(*map(escape, row[texts.num_words - 1 :]))
            table.add_section()
        console.print(table)
        if len(texts.measured) == 1:
            _show_parts(texts.measured[0].facts, console)


def _show_parts(facts: dict[str, Any], console: Console) -> None:
    for what, unit in (("gflops", 1), ("parameters", 10**6)):
        parts = {key.split(".")[1]: facts[key] / unit for key in facts if key.startswith(f"{what}.")}
        if parts:
            console.print(f"{PARTS[what]}: " + ", ".join(f"{part} {value:.3g}" for part, value in parts.items()))


def show_report(report: Report, console: Console) -> None:
    """Print the benchmarks, and in a line each the trials that did not finish."""
    show(report.measured, console)
    for text in report.broken:
        console.print(text, style="yellow", markup=False)
    for section in report.sections:
        for sweep in section.sweeps:
            for trial in sweep.lost:
                said = f": {trial.short_reason}" if trial.reason else ""
                console.print(f"{sweep.name}: {trial.name} {trial.outcome}{said}", style="yellow", markup=False)


def as_json(results: list[Measured]) -> str:
    """Rows for programs."""
    return json.dumps([asdict(each) for each in results])


def cells(row: dict[str, Any]) -> list[str]:
    """A row's texts, in the order of COLUMNS; `-` for what it has not, or had not when it was measured."""
    return ["-" if row.get(name) is None else form.format(row[name]) for name, _, form in COLUMNS]
