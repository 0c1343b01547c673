"""Runs a sweep: stages that all trials share are trained once, then Ray Tune runs the trials, each in its MLflow run.

MLflow holds the outcome of every trial, so a sweep whose driver was killed goes on from there: finished and pruned
trials are not run again, and scheduler and searcher learn from them as if they had been.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, replace

from adafocus.training.stage_lock import StageLock
from pipelines.logs import in_a_line
from pipelines.ray_runtime.allocation import fit_resources
from pipelines.ray_runtime.resources import Resources
from pipelines.ray_runtime.session import ray_session
from pipelines.sweeps.outcomes import STATUSES, TrialOutcome
from pipelines.sweeps.plan import finished_trials, make_plan, unreported_trials
from pipelines.sweeps.stages.shared_stages import train_shared_stages
from pipelines.sweeps.stages.sharing import Reuse, measure_reuse
from pipelines.sweeps.sweep import Sweep
from pipelines.sweeps.sweep_file import continue_sweep, save_sweep
from pipelines.sweeps.tuner import run_trials
from pipelines.tracking.client import Kind, Tracker
from pipelines.tracking.run import FinalStatus, Run
from preprocessing.schema import UserError
from preprocessing.shards.index import DatasetMetadata, read_metadata

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SweepOutcome:
    """How the trials of a sweep ended, the best first, and how much work they shared."""

    trials: list[TrialOutcome]
    reuse: Reuse


def run_sweep(sweep: Sweep) -> SweepOutcome:
    """Run every trial that is not finished and return how each ended; a failed trial does not stop the others.

    Raises UserError for what the user can mend, before or while the shared stages are trained.
    """
    sweep.check()
    dataset = read_metadata(sweep.places.shards)
    tracker = Tracker.at(sweep.places)
    lock = StageLock(sweep.places.runs, f"sweep-{sweep.name}")
    if not lock.take():
        raise UserError(f"sweep {sweep.name!r} is running already: {lock.holder} has it")
    try:
        sweep = continue_sweep(sweep, dataset.version)
        save_sweep(sweep)
        return SweepDriver(sweep, tracker, dataset).run()
    finally:
        lock.release()


class SweepDriver:
    """One start of a sweep."""

    parent: Run
    """The sweep's run in MLflow."""

    def __init__(self, sweep: Sweep, tracker: Tracker, dataset: DatasetMetadata) -> None:
        self.sweep, self.tracker, self.info, self.digest = sweep, tracker, dataset.info, dataset.digest
        budget_h = sweep.resources.time_budget_h
        self.deadline = time.monotonic() + budget_h * 3600 if budget_h else None

    def run(self) -> SweepOutcome:
        """Run what is left of the sweep. Whatever goes wrong, no run stays open in MLflow."""
        try:
            self.parent = self._open_run()
            outcomes = self._run_with_ray()
            self._correct_statuses(outcomes)
            return self._finish(outcomes)
        except BaseException as error:
            self._close_open_runs("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", repr(error))
            raise

    def _open_run(self) -> Run:
        """The sweep's run in MLflow, a new one or the one of an earlier start."""
        sweep = self.sweep
        parent = self.tracker.run(self.info.name, "sweep", sweep.name, sweep=sweep.name)
        space = {f"space.{key}": value for key, value in sweep.space.texts().items()}
        parent.log_params({"recipe": sweep.recipe, **space})
        parent.log_dataset(self.info.name, self.digest, sweep.places.shards)
        return parent

    def _run_with_ray(self) -> list[TrialOutcome]:
        """Train the shared stages and run the trials that are left; the outcomes of all trials."""
        resources, metric = self.sweep.resources, self.info.metric
        # The dashboard takes seconds to start and is needed only to clean up after groups of workers.
        group = resources.workers_per_trial > 1
        with ray_session(resources.ray_address, dashboard=group, worker_logs=True):
            sweep = self.sweep = replace(self.sweep, resources=self._fit_resources())
            in_time = train_shared_stages(sweep, self.parent, self.deadline)
            past = finished_trials(sweep, self.tracker, metric)
            plan = make_plan(sweep, self.tracker, metric, past)
            reported = run_trials(sweep, plan, self.tracker, self.parent.run_id, self.deadline) if in_time else []
            return [*past.values(), *reported, *unreported_trials(sweep, plan, reported, self.deadline)]

    def _fit_resources(self) -> Resources:
        """What each worker gets of the cluster."""
        sweep = self.sweep
        searches = sweep.search == "optuna"  # which would draw trials that have to wait, and learn nothing meanwhile
        return fit_resources(sweep.resources, sweep.num_trials, sweep.options.device, limit_trials=searches)

    def _close_open_runs(self, status: FinalStatus, reason: str) -> None:
        """Close all runs of the sweep that are open. An error of MLflow is logged, for the first error matters more."""
        kinds: tuple[Kind, ...] = ("trial", "sweep")
        try:
            runs = [run for kind in kinds for run in self.tracker.unfinished(kind, sweep=self.sweep.name)]
        except Exception as error:
            log.error("MLflow could not be told that sweep %s ended (%s): %s", self.sweep.name, reason, error)
            return
        for run in runs:
            run.try_to_finish(status, reason)

    def _correct_statuses(self, outcomes: list[TrialOutcome]) -> None:
        """Set the status in MLflow of every pruned or stopped trial, now that no process of one is left: a worker that
        begins or is torn down while its trial is being ended may leave the run open or call it a failure."""
        drawn = [each for each in outcomes if each.point.keys() == self.sweep.space.keys]
        by_key = {self.sweep.trial_key(each.point, self.sweep.version): each for each in drawn}
        for trial in self.tracker.trials(sweep=self.sweep.name):
            outcome = by_key.get(trial.key)
            if outcome is None or outcome.status not in ("pruned", "stopped"):
                continue
            status: FinalStatus = "FINISHED" if outcome.pruned else "KILLED"
            if trial.status != status:
                self.tracker.open(trial.run_id).try_to_finish(status, outcome.reason)

    def _finish(self, outcomes: list[TrialOutcome]) -> SweepOutcome:
        """Log the outcomes to the sweep's run and close it."""
        ranked = sorted(outcomes, key=lambda each: (each.status != "finished", -(each.score or 0.0)))
        begun = [self.sweep.folders(each.point, self.sweep.version) for each in outcomes if each.begun]
        reuse = measure_reuse(begun, self.sweep.started_ms)
        counts = Counter(each.status for each in outcomes)
        rows = [
            {"trial": each.name, "score": each.score, "status": each.status, "error": each.error} for each in ranked
        ]
        self.parent.client.log_dict(self.parent.run_id, rows, "trials.json")
        numbers = {f"trials_{status}": counts[status] for status in STATUSES}
        self.parent.log_metrics({"trials": len(outcomes), **numbers, **reuse.metrics()})
        self.parent.finish("FAILED" if counts["failed"] else "KILLED" if counts["stopped"] else "FINISHED")
        try:
            from pipelines.sweeps.sweep_logger import log_sweep  # here, for Matplotlib would delay the first epoch

            log_sweep(self.tracker, self.parent, self.sweep.name)
        except Exception as error:  # the trials are done, and `adafocus report` draws the page again
            log.warning("the page of sweep %s could not be logged: %s", self.sweep.name, in_a_line(error))
        return SweepOutcome(ranked, reuse)
