"""A report: for each data set the benchmarks, the published results, the sweeps, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.reporting.benchmark_result import BenchmarkResult
from pipelines.reporting.frontier_result import FrontierResult
from pipelines.reporting.published import PublishedResult, published_on
from pipelines.tracking.records import TrialRecord
from pipelines.visualize.sweep_page import SweepData


@dataclass(frozen=True, slots=True)
class SweepSummary:
    """One sweep, its trials ranked by score."""

    name: str
    dataset: str
    recipe: str
    metric: str
    status: str
    space: dict[str, str]
    """What was tried: keys with their values in words."""
    trials: list[TrialRecord]
    stage_hours: dict[str, float]
    """Training time by stage; an epoch that several trials share counts once."""
    hours_without_sharing: float
    """The same in total if every trial had trained its stages for itself."""
    reuse: dict[str, float]
    """What the sweep itself logged of the sharing, if it did."""
    page: SweepData
    """What its page shows."""

    @property
    def hours(self) -> float:
        """Training time of all stages."""
        return sum(self.stage_hours.values())

    @property
    def unfinished(self) -> list[TrialRecord]:
        """Trials that did not finish."""
        return [trial for trial in self.trials if trial.outcome != "finished"]


@dataclass(frozen=True, slots=True)
class Section:
    """All about one data set."""

    dataset: str
    benchmarks: list[BenchmarkResult] = field(default_factory=list)
    sweeps: list[SweepSummary] = field(default_factory=list)
    frontiers: list[FrontierResult] = field(default_factory=list)
    """Comparisons of methods, the newest first."""
    missing: list[str] = field(default_factory=list)
    """What a reader may look for and does not find, in words."""
    views: dict[str, str] = field(default_factory=dict)
    """Views in MLflow's dashboard, by their names: their addresses."""

    @property
    def published(self) -> tuple[PublishedResult, ...]:
        """All that others have published on this data set."""
        return published_on(self.dataset)

    @property
    def compared(self) -> tuple[PublishedResult, ...]:
        """The same if there is a benchmark to compare it with, else the paper's own results."""
        return tuple(row for row in self.published if self.benchmarks or row.family == "AdaFocus")


@dataclass(frozen=True, slots=True)
class Report:
    """All sections, those with results first."""

    store: str
    """Address of the MLflow store, without passwords."""
    sections: list[Section]
    unfinished: list[TrialRecord]
    """Trials outside of sweeps that did not finish."""
    broken: list[str]
    """Benchmarks without a result, in words."""

    @property
    def benchmarks(self) -> list[BenchmarkResult]:
        """The benchmarks of all sections."""
        return [each for section in self.sections for each in section.benchmarks]
