"""Writes a report as files: RESULTS.md, and one HTML page that needs no network and reads well on light and dark."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipelines.reporting.benchmark_result import BenchmarkResult
from pipelines.reporting.frontier_result import HEADINGS as FRONTIER_HEADINGS
from pipelines.reporting.markdown import cell as markdown_cell
from pipelines.reporting.published import MARKS, PublishedResult
from pipelines.reporting.report import Report, Section, SweepSummary
from pipelines.reporting.tables import EXIT_COLUMNS, EXIT_LEGEND, LEGEND, exit_texts, result_tables
from pipelines.tracking.metric_names import IN_WORDS
from pipelines.visualize.charts.figure import to_svg
from pipelines.visualize.charts.result_charts import ResultPoint, compute_chart, online_chart
from pipelines.visualize.sweep_page import sweep_page
from preprocessing.files import write_file
from preprocessing.schema import UserError

PAGE = ".html"
"""Ending of the page's name."""


def write_pages(report: Report, path: Path) -> list[Path]:
    """Write `path` (Markdown), a page of the same name (.html) beside it, and there a page for each sweep; returns all
    paths. Raises UserError for a name that is no Markdown file's."""
    if not path.name or path.is_dir():
        raise UserError(f"--out {path} is a folder: name the Markdown file in it, such as {path / 'RESULTS.md'}")
    if path.suffix == PAGE:
        raise UserError(
            f"--out {path} would be the page, which goes beside the Markdown file: {path.with_suffix('.md')}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    page = path.with_suffix(PAGE)
    write_file(path, markdown(report).encode())
    write_file(page, html(report).encode())
    written = [path, page]
    for section in report.sections:
        for sweep in section.sweeps:
            written.append(path.parent / page_name(sweep))
            write_file(written[-1], sweep_page(sweep.page).encode())
    return written


def page_name(sweep: SweepSummary) -> str:
    """Name of the file that is a sweep's page: a sweep's name is part of one already, a data set's may be anything."""
    return f"sweep-{_slug(sweep.dataset)}-{sweep.name}.html"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())


def markdown(report: Report) -> str:
    """The text of RESULTS.md."""
    text = _environment(False).get_template("results.md.j2").render(_context(report))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def html(report: Report) -> str:
    """The text of the HTML page, with its styles and charts."""
    pictures = {section.dataset: _charts(section) for section in report.sections}
    return _environment(True).get_template("results.html.j2").render(_context(report) | {"pictures": pictures})


def _environment(escape: bool) -> Environment:
    """The templates. Names in the store come from others, so all text is escaped: as HTML if `escape`, else as a cell
    of a Markdown table."""
    environment = Environment(
        loader=PackageLoader("pipelines.reporting"),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = str if escape else markdown_cell
    environment.filters["hours"] = _hours
    environment.filters["tables"] = result_tables
    environment.filters["slug"] = _slug
    environment.filters["page_name"] = page_name
    return environment


def _context(report: Report) -> dict[str, Any]:
    return {
        "report": report,
        "legend": LEGEND,
        "exit_legend": EXIT_LEGEND,
        "exit_headings": [heading for _, heading, _ in EXIT_COLUMNS],
        "exit_texts": exit_texts,
        "frontier_headings": FRONTIER_HEADINGS,
        "marks": MARKS,
        "metric_of": _metric,
        "comparison": _comparison,
    }


def _metric(section: Section) -> str:
    """The name of the data set's metric."""
    if section.benchmarks:
        return IN_WORDS[section.benchmarks[0].facts["metric"]]
    return "top-1" if section.dataset in ("minikinetics", "ssv1", "ssv2") else "mAP"


def _comparison(section: Section, published: tuple[PublishedResult, ...]) -> list[dict[str, Any]]:
    """Measured and published results in one list: first what was measured here (all rows of the best benchmark, the
    first row of the others), then the paper's, then the rest by compute."""
    rows: list[dict[str, Any]] = []
    for number, each in enumerate(section.benchmarks):
        for row in each.rows[: None if number == 0 else 1]:
            accuracy = f"{row[each.facts['metric']]:.1f}"
            method = f"{each.title}: {row['method']}"
            rows.append({"method": method, "accuracy": accuracy, "gflops": f"{row['gflops']:.3g}", "source": "here"})
    order = ["AdaFocus", "AdaFocus+", "AdaFocusV2", "Uni-AdaFocus", "baseline"]
    for result in sorted(published, key=lambda row: (order.index(row.family), row.gflops)):
        rows.append(
            {
                "method": result.method,
                "accuracy": f"{result.accuracy:g} [{result.accuracy_mark}]",
                "gflops": f"{result.gflops:g} [{result.gflops_mark}]",
                "source": result.source,
            }
        )
    return rows


def _charts(section: Section) -> list[tuple[str, str]]:
    """(caption, <svg>) of each chart of a section: accuracy over compute, and accuracy after each frame."""
    metric = _metric(section)
    published = [ResultPoint(row.method, row.gflops, row.accuracy, row.family) for row in section.published]
    best = max(section.benchmarks, key=lambda each: each.score, default=None)
    measured = _points(best) if best else []
    drawn = []
    if measured or published:
        curves = [
            [ResultPoint("", point["gflops"], point[best.facts["metric"]]) for point in points]
            for points in (best.online if best else {}).values()
            if best
        ]
        caption = "Accuracy over compute: " + (f"{best.name} (filled)" if best else "published results only")
        exits = [ResultPoint("", point["gflops"], point[best.facts["metric"]]) for point in best.exits] if best else []
        chart = compute_chart(measured, published, metric, curves, exits)
        drawn.append((caption, to_svg(chart, f"{section.dataset}-compute")))
    if best and best.online:
        lines = {key: [point[best.facts["metric"]] for point in points] for key, points in best.online.items()}
        chart = online_chart(lines, metric)
        drawn.append((f"While a clip is watched: {best.name}", to_svg(chart, f"{section.dataset}-online")))
    for each in section.frontiers:
        drawn.append((f"Methods compared: {', '.join(each.training)}", to_svg(each.chart(), f"{each.run_id}-frontier")))
    return drawn


def _points(result: BenchmarkResult) -> list[ResultPoint]:
    metric = result.facts["metric"]
    return [ResultPoint(row["method"], row["gflops"], row[metric]) for row in result.rows]


def _hours(hours: float) -> str:
    """A time in the unit that fits it."""
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{hours * 60:.1f} min" if hours >= 1 / 60 else f"{hours * 3600:.1f} s"
