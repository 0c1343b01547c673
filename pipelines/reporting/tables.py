"""Tables of benchmark results: as texts for the report's pages, printed on a terminal, and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.reporting.benchmark_result import BenchmarkResult
from pipelines.reporting.frontier_result import HEADINGS, FrontierResult
from pipelines.reporting.report import Report

COLUMNS = (
    ("method", "patches", "{}"),
    ("top1", "top-1", "{:.1f}"),
    ("map", "mAP", "{:.1f}"),
    ("hit_rate", "hits", "{:.1f}"),
    ("covered", "covered", "{:.1f}"),
    ("gflops", "GFLOPs", "{:.3g}"),
    ("videos_per_s", "videos/s", "{:.0f}"),
    ("latency_ms", "ms", "{:.1f}"),
    ("memory_mb", "MB", "{:.0f}"),
)
"""Field of a row, heading, format."""
LEGEND = (
    "top-1, mAP in percent; hits: percent of the frames with an object in which the patch holds all of it; covered: "
    "percent of the object's box in the patch; GFLOPs: multiply-adds (10^9) per video; ms: one video at a time; "
    "MB: most that a batch and what is made of it take, beside the weights"
)
EXIT_COLUMNS = (
    ("percent", "budget", "{} %"),
    ("gflops", "GFLOPs", "{:.3g}"),
    ("pro_rata_gflops", "pro rata", "{:.3g}"),
    ("frames", "frames", "{:.2f}"),
    ("top1", "top-1", "{:.1f}"),
    ("map", "mAP", "{:.1f}"),
    ("videos_per_s", "videos/s", "{:.0f}"),
    ("latency_ms", "ms", "{:.1f}"),
)
"""The same of a point of early exit."""
EXIT_LEGEND = (
    "budget: in percent of a whole clip's compute, met in the mean on the clips that thresholds come from; GFLOPs: "
    "computed by the exits here; pro rata: an exit counted as its share of the total; frames: seen of a clip"
)
COSTS_BY_PART = {
    "gflops": ("GFLOPs of the first row by part", 1),
    "parameters": ("parameters in millions by part", 10**6),
}
"""Prefix of the facts, heading, unit."""


@dataclass(frozen=True, slots=True)
class ResultTable:
    """Benchmarks under the same conditions as a table of texts."""

    title: str
    headings: list[str]
    blocks: list[list[list[str]]]
    """For each benchmark its rows of texts."""
    results: list[BenchmarkResult]

    @property
    def num_words(self) -> int:
        """Columns of words, before those of numbers."""
        return 1 + len(self.headings) - len(COLUMNS)


def result_tables(results: Iterable[BenchmarkResult]) -> list[ResultTable]:
    """A table for all benchmarks of the same data set under the same conditions."""
    groups: dict[tuple[str, str], list[BenchmarkResult]] = {}
    for result in results:
        groups.setdefault((result.facts["dataset"], result.conditions), []).append(result)
    headings, tables = [heading for _, heading, _ in COLUMNS], []
    for (dataset, conditions), group in groups.items():
        if len(group) == 1:
            title, blocks = f"{dataset}: {group[0].title}, {conditions}", [[_texts(row) for row in group[0].rows]]
            tables.append(ResultTable(title, headings, blocks, group))
        else:
            blocks = [[[each.title, *_texts(row)] for row in each.rows] for each in group]
            tables.append(ResultTable(f"{dataset}: {conditions}", ["trial", *headings], blocks, group))
    return tables


def print_results(results: Iterable[BenchmarkResult], console: Console) -> None:
    """Print a table for each benchmark, and below that of a single one what its parts cost. Columns that are empty in
    all tables of the same conditions are left out."""
    for table in result_tables(results):
        names = table.num_words - 1  # of the benchmark: a terminal is too narrow for a column of them
        blocks = [[row[names:] for row in block] for block in table.blocks]
        kept = [column for column in range(len(COLUMNS)) if any(row[column] != "-" for rows in blocks for row in rows)]
        if names:
            console.print(table.title, style="bold", markup=False, highlight=False)
        for number, rows in enumerate(blocks):
            title = escape(table.blocks[number][0][0]) if names else escape(table.title)
            last = number == len(blocks) - 1
            printed = _table(title, LEGEND if last else None)
            for column in kept:
                printed.add_column(COLUMNS[column][1], justify="right" if column else "left", no_wrap=column > 0)
            for row in rows:
                printed.add_row(*(escape(row[column]) for column in kept))
            console.print(printed)
        if len(table.results) == 1:
            _print_costs(table.results[0].facts, console)
        for result in table.results:
            if result.exits:
                _print_exits(result, console)


def _table(title: str, caption: str | None) -> Table:
    """An empty table without lines between columns: 80 letters a line have to do."""
    return Table(
        title=title,
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )


def exit_texts(result: BenchmarkResult) -> list[list[str]]:
    """Texts of a benchmark's points of early exit, in the order of EXIT_COLUMNS."""
    return [[form.format(point[name]) for name, _, form in EXIT_COLUMNS] for point in result.exits]


def _print_exits(result: BenchmarkResult, console: Console) -> None:
    title = f"{result.title}: early exit, {result.exit_conditions}"
    printed = _table(escape(title), EXIT_LEGEND)
    for _, heading, _ in EXIT_COLUMNS:
        printed.add_column(heading, justify="right", no_wrap=True)
    for texts in exit_texts(result):
        printed.add_row(*texts)
    console.print(printed)


def print_frontier(result: FrontierResult, console: Console) -> None:
    """Print a comparison of methods."""
    title = f"{result.dataset}: methods compared by {result.metric}, {result.conditions}"
    printed = _table(escape(title), LEGEND)
    for number, heading in enumerate(HEADINGS[1:]):  # a terminal is too narrow for a column of names
        printed.add_column(heading, justify="left" if number == 0 else "right", no_wrap=number > 0)
    for name, rows in groupby(result.rows(), key=lambda row: row[0]):
        printed.add_row(f"[bold]{escape(name)}[/bold]")
        for row in rows:
            printed.add_row(*map(escape, row[1:]))
        printed.add_section()
    console.print(printed)


def print_report(report: Report, console: Console) -> None:
    """Print the benchmarks, and in a line each the trials of sweeps that did not finish."""
    print_results(report.benchmarks, console)
    for text in report.broken:
        console.print(text, style="yellow", markup=False)
    for section in report.sections:
        for sweep in section.sweeps:
            for trial in sweep.unfinished:
                reason = f": {trial.short_reason}" if trial.reason else ""
                console.print(f"{sweep.name}: {trial.name} {trial.outcome}{reason}", style="yellow", markup=False)


def to_json(results: Sequence[BenchmarkResult]) -> str:
    """The results for programs."""
    return json.dumps([asdict(each) for each in results])


def _print_costs(facts: dict[str, Any], console: Console) -> None:
    """Print what each part of the model costs."""
    for prefix, (heading, unit) in COSTS_BY_PART.items():
        parts = {key.split(".")[1]: facts[key] / unit for key in facts if key.startswith(f"{prefix}.")}
        if parts:
            console.print(f"{heading}: " + ", ".join(f"{part} {value:.3g}" for part, value in parts.items()))


def _texts(row: dict[str, Any]) -> list[str]:
    """A row's texts, in the order of COLUMNS; `-` for a value that is none, or was not measured yet at the time."""
    return ["-" if row.get(name) is None else form.format(row[name]) for name, _, form in COLUMNS]
