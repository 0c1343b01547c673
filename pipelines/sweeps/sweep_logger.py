"""What is logged of a sweep when it ends: its page, and a description with its trials."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pipelines.reporting.collect import summarise
from pipelines.reporting.run_notes import sweep_note
from pipelines.tracking.client import Tracker
from pipelines.tracking.run import Run
from pipelines.tracking.saved_views import save_view, sweep_view
from pipelines.visualize.sweep_page import sweep_page

PAGE = "sweep.html"


def log_sweep(tracker: Tracker, parent: Run, name: str) -> None:
    """Log the page and the description of a sweep whose trials have ended, and save a view of its trials; `parent` is
    its run."""
    record = next(each for each in tracker.sweeps(sweep=name) if each.run_id == parent.run_id)
    trials = [trial for trial in tracker.trials(sweep=name) if trial.parent_id == parent.run_id]
    summary = summarise(tracker, record, trials)
    with tempfile.TemporaryDirectory() as temporary:
        page = Path(temporary) / PAGE
        page.write_text(sweep_page(summary.page), "utf-8")
        parent.log_artifact(page)
    links = {trial.run_id: tracker.open(trial.run_id).link for trial in trials}
    view = save_view(tracker, parent.experiment_id, sweep_view(name, list(record.space)))
    parent.set_description(sweep_note(summary, links, parent.artifact_names(), view))
