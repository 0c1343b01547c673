"""What is logged of a comparison of methods: a run of its own with the table and the chart."""

from __future__ import annotations

from dataclasses import asdict

from pipelines.benchmarks.frontier import Frontier
from pipelines.paths import Places
from pipelines.reporting.frontier_result import FRONTIER_TABLE, FrontierResult
from pipelines.tracking.client import Tracker
from pipelines.tracking.run import Run


def log_frontier(frontier: Frontier, places: Places) -> tuple[Run, FrontierResult]:
    """Log it. The same contestants compared again on the same data go into the same run."""
    tracker, names = Tracker.at(places, patient=True), ",".join(frontier.training)
    run = tracker.run(frontier.dataset, "frontier", "frontier", contestants=names, digest=frontier.digest)
    table = {
        "dataset": frontier.dataset,
        "metric": frontier.metric,
        "conditions": frontier.conditions,
        "points": [asdict(point) for point in frontier.points],
        "training": {name: asdict(cost) for name, cost in frontier.training.items()},
    }
    result = FrontierResult.read(run.run_id, table)
    run.log_params({"contestants": names})
    run.client.log_dict(run.run_id, table, FRONTIER_TABLE)
    run.client.log_figure(run.run_id, result.chart(), "frontier.png")
    run.set_description("Compares " + ", ".join(frontier.training) + ": frontier.png and frontier.json.")
    run.finish()
    return run, result
