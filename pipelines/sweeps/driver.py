"""A sweep: stages that all trials share are trained once, then Ray Tune runs the trials, each in its own MLflow run.

MLflow says what has become of every trial, so a sweep whose driver was killed goes on from there: finished and pruned
trials are not run again, and scheduler and search learn from them as if they had been.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray import tune

from adafocus import checkpoint
from adafocus.divergence import DivergedError
from adafocus.training.reports import EpochReport
from adafocus.training.stage_lock import StageLock
from pipelines.logs import in_a_line
from pipelines.ray_runtime.allocation import fit_resources
from pipelines.ray_runtime.cluster import largest, total_of
from pipelines.ray_runtime.resources import Resources
from pipelines.ray_runtime.session import ray_session
from pipelines.sweeps.outcome_callback import OutcomeCallback, point_of
from pipelines.sweeps.outcomes import BUDGET_ENDED, TrialOutcome
from pipelines.sweeps.plan import Plan, finished_trials, make_plan, unreported_trials
from pipelines.sweeps.scheduler_table import find_scheduler
from pipelines.sweeps.sharing import Reuse, measure_reuse
from pipelines.sweeps.sweep import Sweep, continued
from pipelines.sweeps.trial import OutageError, run_trial, train_shared, warm_up
from pipelines.tracking.client import Kind, Tracker
from pipelines.tracking.run import FinalStatus, Run
from pipelines.training.train import to_mlflow
from preprocessing.schema import DatasetInfo, UserError
from preprocessing.shards.index import read_metadata

log = logging.getLogger(__name__)

TUNE_SETTINGS = {
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # what trials are compared by is missing outside the judged stage
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # MLflow has it all: no files of Tune's own for every trial
    "RAY_AIR_NEW_OUTPUT": "0",  # no boxes about the search
}
"""Environment variables, read by Tune in the driver."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a sweep ended."""

    trials: list[TrialOutcome]
    reuse: Reuse


def run_sweep(sweep: Sweep) -> Outcome:
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
        sweep = continued(sweep, dataset.digest)
        sweep.save()
        return _Driver(sweep, tracker, dataset.info).run()
    finally:
        lock.release()


class _Driver:
    """One start of a sweep."""

    parent: Run

    def __init__(self, sweep: Sweep, tracker: Tracker, info: DatasetInfo) -> None:
        self.sweep, self.tracker, self.info, self.digest = sweep, tracker, info, sweep.digest
        self.deadline = (
            time.monotonic() + sweep.resources.time_budget_h * 3600 if sweep.resources.time_budget_h else None
        )

    def run(self) -> Outcome:
        try:
            resources = self.sweep.resources
            self.parent = self._open()
            # The dashboard takes seconds to start and is needed only to clean up after groups of workers.
            group = resources.workers_per_trial > 1
            with ray_session(resources.ray_address, dashboard=group, worker_logs=True) as own:
                if own and resources.starts_ray and not group:
                    self._warm()
                self.sweep = replace(self.sweep, resources=self._fit_resources())
                in_time = self._share()
                known = self.sweep, self.tracker, self.info.metric
                past = finished_trials(*known)
                plan = make_plan(*known, past)
                tried = self._trials(plan) if in_time else []
                results = [*past.values(), *tried, *unreported_trials(self.sweep, plan, tried, self.deadline)]
            self._settle(results)
            return self._conclude(results)
        except BaseException as error:
            self._abort("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", repr(error))
            raise

    def _fit_resources(self) -> Resources:
        sweep = self.sweep
        searches = sweep.search == "optuna"  # which would draw trials that have to wait, and learn nothing meanwhile
        return fit_resources(sweep.resources, sweep.num_trials, sweep.options.device, limit_trials=searches)

    def _open(self) -> Run:
        """The sweep's run, begun or found again."""
        sweep = self.sweep
        parent = self.tracker.run(self.info.name, "sweep", sweep.name, sweep=sweep.name)
        space = {f"space.{key}": value for key, value in sweep.space.shown().items()}
        parent.params({"recipe": sweep.recipe, **space})
        parent.dataset(self.info, self.digest, sweep.places.shards)
        return parent

    def _abort(self, status: FinalStatus, reason: str) -> None:
        """Close all runs that are open. What went wrong matters more than that MLflow cannot be told of it."""
        kinds: tuple[Kind, ...] = ("trial", "sweep")
        try:
            left = [run for kind in kinds for run in self.tracker.unfinished(kind, sweep=self.sweep.name)]
        except Exception as error:
            log.error("MLflow could not be told that sweep %s ended (%s): %s", self.sweep.name, reason, error)
            return
        for run in left:
            run.try_to_finish(status, reason)

    def _settle(self, results: list[TrialOutcome]) -> None:
        """Let MLflow say of every pruned or stopped trial that it was, now that no process of one is left: some are
        begun or torn down while their trial is being ended, and leave a run open or call that a failure."""
        drawn = [each for each in results if each.point.keys() == self.sweep.space.keys]
        ended = {self.sweep.trial_key(each.point, self.digest): each for each in drawn}
        for trial in self.tracker.trials(sweep=self.sweep.name):
            result = ended.get(trial.key)
            if result is None or result.status not in ("pruned", "stopped"):
                continue
            status: FinalStatus = "FINISHED" if result.pruned else "KILLED"
            if trial.status != status:
                self.tracker.open(trial.run_id).try_to_finish(status, result.pruned or result.stopped)

    def _warm(self) -> None:
        """Let all workers import side by side what the shared stages and the first trials would import in turn."""
        for _ in range(total_of("CPU")):
            ray.remote(num_cpus=1)(warm_up).remote()

    def _share(self) -> bool:
        """Train the stages that all trials share, in one task with a whole machine, or a trial's share of GPUs.

        Returns whether they are finished: False if the time budget ended before.
        """
        sweep, shared = self.sweep, self.sweep.shared
        folders = sweep.folders({}, self.digest)[: len(shared)]
        self.parent.set_stages(folders)
        if all((folder / checkpoint.META).exists() for folder in folders):
            for folder in folders:
                to_mlflow(self.parent)([EpochReport(**row) for row in checkpoint.read_meta(folder).history])
            return True
        log.info("stages that all trials share: %s", ", ".join(shared))
        resources, group = sweep.resources, sweep.resources.workers_per_trial > 1
        whole = resources.cpus_per_worker if resources.gpus_per_worker else largest("CPU")
        task = ray.remote(
            num_cpus=0 if group else whole,
            num_gpus=0 if group else resources.gpus_per_worker,
            max_retries=resources.max_failures,
            retry_exceptions=[OutageError],
        )(train_shared).remote(sweep, self.parent.run_id)
        timeout = None if self.deadline is None else max(self.deadline - time.monotonic(), 1)
        try:
            ray.get(task, timeout=timeout)
        except ray.exceptions.GetTimeoutError:
            log.info("%s in the stages that all trials share", BUDGET_ENDED)
            ray.cancel(task)
            return False
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None  # as it was raised in the worker, without Ray's trace around it
            if not isinstance(error.cause, OSError | MemoryError | DivergedError | OutageError):
                log.error("%s", error)  # where in the code it happened
            reason = in_a_line(error.cause)
            raise UserError(f"the stages that all trials share ({', '.join(shared)}) failed: {reason}") from None
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"the worker that trained the stages which all trials share died {resources.max_failures + 1} times "
                f"({reason}); --resume {sweep.name} goes on"
            ) from None
        return True

    def _trials(self, plan: Plan) -> list[TrialOutcome]:
        """Run the trials that are left."""
        if not plan.count:
            return []
        for key, value in TUNE_SETTINGS.items():
            os.environ.setdefault(key, value)
        quiet = logging.getLogger("ray.tune.execution.tune_controller")
        quiet.setLevel(logging.CRITICAL)  # OutcomeCallback logs it in a line
        logging.getLogger("ray.tune.analysis").setLevel(logging.ERROR)  # misses the files that nobody writes
        callback = OutcomeCallback(self.sweep, self.tracker, plan.scheduler, self.deadline)
        self._tuner(plan, callback).fit()
        return callback.outcomes

    def _tuner(self, plan: Plan, callback: OutcomeCallback) -> tune.Tuner:
        sweep, resources = self.sweep, self.sweep.resources
        # A group's own workers have all the processors: its trial only waits for them, so it asks for none.
        alone = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
        needs = tune.PlacementGroupFactory([{"memory": 1e6} if resources.workers_per_trial > 1 else alone])
        trainable = tune.with_parameters(_run, sweep=sweep, parent=self.parent.run_id)
        return tune.Tuner(
            tune.with_resources(trainable, needs),
            param_space=None if plan.searcher else {"point": tune.grid_search(plan.points)},
            tune_config=tune.TuneConfig(
                num_samples=plan.count if plan.searcher else 1,
                search_alg=plan.searcher,
                scheduler=plan.scheduler,
                max_concurrent_trials=resources.max_concurrent or None,
                reuse_actors=reuses_workers(sweep),
                time_budget_s=None if self.deadline is None else max(self.deadline - time.monotonic(), 1),
            ),
            run_config=tune.RunConfig(
                name=sweep.name,
                storage_path=str(sweep.places.runs / "tune"),
                failure_config=tune.FailureConfig(max_failures=resources.max_failures),
                callbacks=[callback],
                verbose=0,  # the trials log a line an epoch themselves
            ),
        )

    def _conclude(self, results: list[TrialOutcome]) -> Outcome:
        ranked = sorted(results, key=lambda result: (result.status != "finished", -(result.score or 0.0)))
        since = self.sweep.started_ms
        begun = [each.point for each in results if each.begun]
        reuse = measure_reuse([self.sweep.folders(point, self.digest) for point in begun], since)
        counts = {f"trials_{word}": 0 for word in ("finished", "pruned", "failed", "stopped")}
        for result in results:
            counts[f"trials_{result.status}"] += 1
        shown = [
            {"trial": each.name, "score": each.score, "status": each.status, "error": each.error} for each in ranked
        ]
        self.parent.client.log_dict(self.parent.run_id, shown, "trials.json")
        self.parent.metrics({"trials": len(results), **counts, **reuse.metrics()})
        self.parent.finish(
            "FAILED" if counts["trials_failed"] else "KILLED" if counts["trials_stopped"] else "FINISHED"
        )
        return Outcome(ranked, reuse)


def reuses_workers(sweep: Sweep) -> bool:
    """May a trial run in the process of the one before? Importing torch takes longer than a short trial.

    Not after a trial that may have been pruned: it goes on to the end of its epoch, and Tune waits two seconds for
    that, then it gives up the trial that should come next. Not on a GPU: an error of CUDA leaves the process useless.
    """
    resources = sweep.resources
    on_gpu = resources.gpus_per_worker > 0 or sweep.options.device.startswith("cuda")
    return resources.workers_per_trial == 1 and not find_scheduler(sweep.scheduler).prunes and not on_gpu


def _run(config: dict[str, Any], *, sweep: Sweep, parent: str) -> None:
    """What Tune calls."""
    run_trial(point_of(config), sweep=sweep, parent=parent)
