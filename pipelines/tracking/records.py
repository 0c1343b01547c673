"""Runs in MLflow as typed records: all that anybody reads of their tags, parameters and metrics.

Runs of earlier versions lack some tags; their records then hold empty values.
"""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from pipelines.tracking import tag_names
from pipelines.tracking.score import SCORE, last_score, reached_stages, score_name

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

Outcome = Literal["finished", "pruned", "failed", "stopped", "running", "stale"]
OUTCOMES: dict[str, Outcome] = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "stopped"}
"""How MLflow's status of a run is called here."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What is known of any run."""

    run_id: str
    name: str
    dataset: str
    """Name of its experiment."""
    experiment_id: str
    status: str
    """MLflow's: RUNNING, FINISHED, FAILED, KILLED."""
    recipe: str
    params: dict[str, str]
    metrics: dict[str, float]
    """The newest value of each."""
    started_ms: int
    """Since 1970."""
    ended_ms: int | None
    """None while it is open."""

    @classmethod
    def of(cls, run: MlflowRun, dataset: str) -> Self:
        """The record of a run."""
        return cls(**_common(run, dataset))


@dataclass(frozen=True, slots=True)
class TrialRecord(RunRecord):
    """A trial: one configuration, trained through all stages."""

    key: str
    """Key of its last stage; its name outside of sweeps."""
    sweep: str
    """Empty outside of sweeps."""
    parent_id: str
    """Id of the sweep's run."""
    point: dict[str, Any] | None
    """What it changes of the sweep's configuration; None if it ended before that was logged."""
    stages: tuple[str, ...]
    """Folders of its stages, in order."""
    checkpoint: str
    """Folder of its result; empty if it has none."""
    metric: str
    """The data set's, by which trials are compared; empty if it has no result."""
    digest: str
    """Of the index of its data set; empty if it has no result."""
    outcome: Outcome
    reason: str
    """Why it failed, or was pruned or stopped."""
    pruned_epoch: int | None
    """Epoch, counted through all stages, after which it was pruned."""

    @property
    def full_name(self) -> str:
        """Sweep and name."""
        return f"{self.sweep} {self.name}".strip()

    @property
    def short_reason(self) -> str:
        """Its reason, cut to a line."""
        return textwrap.shorten(self.reason, 160, placeholder=" ...")

    @property
    def score(self) -> float | None:
        """Of the last evaluated stage, in percent; None if it has no result or no stage was evaluated."""
        return last_score(self.metrics, self.metric) if self.metric else None

    @property
    def newest_score(self) -> float | None:
        """The same of a trial that did not finish too: the score of its newest evaluation; None if there was none."""
        return self.score if self.metric else self.metrics.get(SCORE)

    @property
    def reached(self) -> str:
        """The last stage of which anything was logged; empty if none."""
        return next(reversed(reached_stages(self.metrics)), "")

    def score_in(self, stage: str, metric: str) -> float | None:
        """The newest score in a stage."""
        return self.metrics.get(score_name(stage, metric))

    @classmethod
    def of(cls, run: MlflowRun, dataset: str) -> TrialRecord:
        """The record of a trial's run."""
        tags = run.data.tags
        pruned = tags.get(tag_names.PRUNED)
        point, epoch = tags.get(tag_names.POINT), tags.get(tag_names.PRUNED_EPOCH)
        outcome = OUTCOMES.get(run.info.status, "running")
        return cls(
            **_common(run, dataset),
            key=tags[tag_names.TRIAL],
            sweep=tags.get(tag_names.SWEEP, ""),
            parent_id=tags.get(tag_names.PARENT, ""),
            point=json.loads(point) if point else None,
            stages=tuple(tags.get(tag_names.STAGES, "").split()),
            checkpoint=tags.get(tag_names.CHECKPOINT, ""),
            metric=tags.get(tag_names.METRIC, ""),
            digest=tags.get(tag_names.DIGEST, ""),
            outcome="pruned" if pruned else outcome,
            reason=pruned or (tags.get(tag_names.REASON, "") if outcome in ("failed", "stopped") else ""),
            pruned_epoch=int(epoch) if epoch else None,
        )


@dataclass(frozen=True, slots=True)
class SweepRecord(RunRecord):
    """A sweep, and the stages that its trials share."""

    sweep: str
    stages: tuple[str, ...]
    """Folders of the stages that all trials share."""
    space: dict[str, str]
    """What is tried: keys with their values in words."""
    reuse: dict[str, float]
    """How much work its trials saved each other; empty until it has ended."""

    @classmethod
    def of(cls, run: MlflowRun, dataset: str) -> SweepRecord:
        """The record of a sweep's run."""
        data = run.data
        return cls(
            **_common(run, dataset),
            sweep=data.tags[tag_names.SWEEP],
            stages=tuple(data.tags.get(tag_names.STAGES, "").split()),
            space=_below("space.", data.params),
            reuse=_below("reuse/", data.metrics),
        )


@dataclass(frozen=True, slots=True)
class BenchmarkRecord(RunRecord):
    """A benchmark of a model."""

    trial: str
    """Id of the run of the trial that was measured; a folder's name if it was none."""

    @property
    def measured(self) -> str:
        """Name of what was measured."""
        return self.name.removeprefix("benchmark ")

    @classmethod
    def of(cls, run: MlflowRun, dataset: str) -> BenchmarkRecord:
        """The record of a benchmark's run."""
        return cls(**_common(run, dataset), trial=run.data.tags[tag_names.TRIAL])


def _common(run: MlflowRun, dataset: str) -> dict[str, Any]:
    return {
        "run_id": run.info.run_id,
        "name": str(run.info.run_name),
        "dataset": dataset,
        "experiment_id": run.info.experiment_id,
        "status": run.info.status,
        "recipe": run.data.params.get("recipe", ""),
        "params": dict(run.data.params),
        "metrics": dict(run.data.metrics),
        "started_ms": run.info.start_time or 0,
        "ended_ms": run.info.end_time,
    }


def _below(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    """The values whose names begin with a prefix, by the rest of their names."""
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
