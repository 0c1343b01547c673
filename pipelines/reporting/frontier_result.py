"""A comparison of methods as its run in MLflow holds it: the table, and the chart of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from pipelines.tracking.metric_names import IN_WORDS
from pipelines.visualize.charts.frontier_chart import ChartPoint, frontier_chart

FRONTIER_TABLE = "frontier.json"
HEADINGS = ("method", "what it does", "accuracy", "hits", "GFLOPs", "ms", "training")


@dataclass(frozen=True, slots=True)
class FrontierResult:
    """The table of one comparison."""

    run_id: str
    dataset: str
    metric: str
    """In words."""
    conditions: str
    points: list[dict[str, Any]]
    """The fields of `FrontierPoint`."""
    training: dict[str, dict[str, float]]
    """The fields of `TrainingCost`, by contestant."""

    @classmethod
    def read(cls, run_id: str, table: dict[str, Any]) -> FrontierResult:
        """Of the table that was logged."""
        metric = IN_WORDS[table["metric"]]
        return cls(run_id, table["dataset"], metric, table["conditions"], table["points"], table["training"])

    def minutes(self, contestant: str) -> float:
        """What its training took: processor time where that was recorded, else time."""
        cost = self.training[contestant]
        return cost["processor_minutes"] or cost["minutes"]

    def rows(self) -> list[list[str]]:
        """Rows of texts, in the order of HEADINGS; those that stop early are in the chart alone."""
        texts = []
        for point in self.points:
            if point["kind"] in ("prefix", "exit"):
                continue
            own = point["kind"] == "own"
            hits, latency = point["hit_rate"], point["latency_ms"]
            texts.append(
                [
                    point["contestant"],
                    point["label"],
                    f"{point['accuracy']:.1f}",
                    "-" if hits is None else f"{hits:.1f}",
                    f"{point['gflops']:.3g}",
                    "-" if latency is None else f"{latency:.1f}",
                    f"{self.minutes(point['contestant']):.1f} min" if own else "",
                ]
            )
        return texts

    def chart(self) -> Figure:
        """Accuracy over compute, over latency, and training time."""
        points = [
            ChartPoint(
                point["contestant"],
                point["label"],
                point["kind"],
                point["accuracy"],
                point["gflops"],
                point["latency_ms"],
            )
            for point in self.points
        ]
        return frontier_chart(points, {name: self.minutes(name) for name in self.training}, self.metric)
