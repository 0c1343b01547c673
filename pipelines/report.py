"""Results out of MLflow: a table on the terminal and RESULTS.md, written by code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.train import Places
from preprocessing.schema import UserError

COLUMNS = (
    ("method", "patches", "{}"),
    ("top1", "top-1", "{:.1f}"),
    ("map", "mAP", "{:.1f}"),
    ("hit_rate", "hits", "{:.1f}"),
    ("gflops", "GFLOPs", "{:.3g}"),
    ("videos_per_s", "videos/s", "{:.0f}"),
    ("latency_ms", "ms", "{:.1f}"),
)
"""Field, heading, format."""
LEGEND = (
    "top-1, mAP in percent; hits: percent of frames in which the patch holds the whole object; GFLOPs: multiply-adds "
    "(10^9) per video; ms: one video at a time"
)


def collect(places: Places, sweep: str | None) -> list[dict[str, Any]]:
    """The newest benchmark of each measured trial (of one sweep, or of all): facts and rows, as they were logged."""
    tracker = places.tracker()
    wanted = {run.info.run_id for run in tracker.find("trial", sweep=sweep)} if sweep else None
    found = []
    for run in tracker.find("benchmark"):
        trial = run.data.tags["adafocus.trial"]
        if wanted is None or trial in wanted:
            table = tracker.read_json(run, "table.json")
            found.append({"name": str(run.info.run_name).removeprefix("benchmark "), "trial": trial, **table})
    if not found:
        of = f" of sweep {sweep!r}" if sweep else ""
        raise UserError(f"{places.tracking_uri} holds no benchmark{of}; `adafocus benchmark` makes one")
    return found


def show(results: list[dict[str, Any]], console: Console) -> None:
    """Print one table per measured trial."""
    for result in results:
        table = Table(title=_title(result), title_justify="left", caption=LEGEND, caption_justify="left")
        for number, (_, heading, _) in enumerate(COLUMNS):
            table.add_column(heading, justify="left" if number == 0 else "right", no_wrap=True)
        for row in result["rows"]:
            table.add_row(*_cells(row))
        console.print(table)


def markdown(results: list[dict[str, Any]]) -> str:
    """The same as RESULTS.md."""
    lines = ["# Results", "", "Written by `adafocus report` from the runs in MLflow.", "", f"{LEGEND}.", ""]
    for result in results:
        lines += [f"## {_title(result)}", ""]
        lines.append("| " + " | ".join(heading for _, heading, _ in COLUMNS) + " |")
        lines.append("|---|" + "---:|" * (len(COLUMNS) - 1))
        lines += ["| " + " | ".join(_cells(row)) + " |" for row in result["rows"]]
        lines.append("")
    return "\n".join(lines)


def write(results: list[dict[str, Any]], path: Path) -> None:
    """Write RESULTS.md."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(markdown(results))


def as_json(results: list[dict[str, Any]]) -> str:
    """Rows for programs."""
    return json.dumps(results)


def _title(result: dict[str, Any]) -> str:
    facts = result["facts"]
    return (
        f"{facts['dataset']}: {result['name']}, {facts['clips']} clips of split {facts['split']}, {facts['device']}, "
        f"batch {facts['batch_size']}"
    )


def _cells(row: dict[str, Any]) -> list[str]:
    return ["-" if row[field] is None else form.format(row[field]) for field, _, form in COLUMNS]
