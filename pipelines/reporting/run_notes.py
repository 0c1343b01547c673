"""The descriptions that runs have in MLflow: what was done, its result as a table, and where its pictures are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.reporting.benchmark_result import BenchmarkResult
from pipelines.reporting.markdown import cell, table
from pipelines.reporting.report import SweepSummary
from pipelines.reporting.tables import EXIT_COLUMNS, LEGEND, exit_texts, result_tables

MOST_TRIALS = 20
"""Trials of a sweep that its description lists: MLflow keeps 8000 characters."""
PICTURES = {
    "patches.png": "where the model looks",
    "confusion.png": "which class is taken for which",
    "classes.png": "accuracy of each class",
    "compute.png": "accuracy over compute, beside what was published",
    "online.png": "accuracy while a clip is watched",
    "gallery.html": "clips explained frame by frame",
    "sweep.html": "settings and scores of all trials, to click through",
}
"""Artifacts that are worth a look, with what they show."""


def benchmark_note(result: BenchmarkResult, subject: str, artifacts: Sequence[str], view: str = "") -> str:
    """The description of a benchmark's run. `subject`: what was measured, `view`: where it is compared with others,
    both as Markdown."""
    (rows,) = result_tables([result])
    parts = [f"Measures {subject}: {result.conditions}.", table(rows.headings, 1, rows.blocks[0]), f"{LEGEND}."]
    if result.exits:
        headings = [heading for _, heading, _ in EXIT_COLUMNS]
        parts += [f"Early exit, {result.exit_conditions}:", table(headings, 0, exit_texts(result))]
    parts += [f"Beside the others: {view}." if view else "", _pictures(artifacts)]
    return "\n\n".join(part for part in parts if part)


def sweep_note(summary: SweepSummary, links: Mapping[str, str], artifacts: Sequence[str], view: str = "") -> str:
    """The description of a sweep's run. `links`: Markdown links to its trials by their run ids, `view`: one to their
    charts."""
    tried = "\n".join(f"* `{key}`: {cell(values)}" for key, values in summary.space.items())
    shown = summary.trials[:MOST_TRIALS]
    lines = [f"| trial | {summary.metric} | ended |", "|---|---:|---|"]
    for trial in shown:
        score = "-" if trial.score is None else f"{trial.score:.1f}"
        lines.append(f"| {links.get(trial.run_id) or cell(trial.name)} | {score} | {trial.outcome} |")
    rest = len(summary.trials) - len(shown)
    more = f"{rest} more below it." if rest else ""
    about = f"A sweep over recipe `{summary.recipe}`; {len(summary.trials)} trials, the best first."
    charts = f"Charts of its trials: {view}." if view else ""
    return "\n\n".join(part for part in (about, tried, "\n".join(lines), more, charts, _pictures(artifacts)) if part)


def _pictures(artifacts: Sequence[str]) -> str:
    shown = [f"* `{name}`: {about}" for name, about in PICTURES.items() if name in artifacts]
    return "\n".join(["Among its artifacts:", "", *shown]) if shown else ""
