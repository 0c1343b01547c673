"""Runs the trials of a plan with Ray Tune."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from ray import tune

from pipelines.progress import progress_rows
from pipelines.sweeps.outcome_callback import OutcomeCallback, point_of
from pipelines.sweeps.outcomes import TrialOutcome
from pipelines.sweeps.plan import Plan
from pipelines.sweeps.progress_callback import ProgressCallback
from pipelines.sweeps.search.scheduler_table import find_scheduler
from pipelines.sweeps.sweep import Sweep
from pipelines.sweeps.workers.trial import run_trial
from pipelines.tracking.client import Tracker

TUNE_SETTINGS = {
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # what trials are compared by is missing outside the judged stage
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # MLflow has it all: no files of Tune's own for every trial
    "RAY_AIR_NEW_OUTPUT": "0",  # no boxes about the search
}
"""Environment variables, read by Tune in the driver."""


def run_trials(sweep: Sweep, plan: Plan, tracker: Tracker, parent: str, deadline: float | None) -> list[TrialOutcome]:
    """Run the trials that are left, and return how each ended. `parent` is the id of the sweep's run."""
    if not plan.count:
        return []
    for key, value in TUNE_SETTINGS.items():
        os.environ.setdefault(key, value)
    # OutcomeCallback logs a failure in a line.
    logging.getLogger("ray.tune.execution.tune_controller").setLevel(logging.CRITICAL)
    logging.getLogger("ray.tune.analysis").setLevel(logging.ERROR)  # misses the files that nobody writes
    callback = OutcomeCallback(sweep, tracker, plan.scheduler, deadline)
    with progress_rows() as rows:
        _tuner(sweep, plan, [callback, ProgressCallback(sweep, rows)], parent, deadline).fit()
    return callback.outcomes


def _tuner(sweep: Sweep, plan: Plan, callbacks: list[tune.Callback], parent: str, deadline: float | None) -> tune.Tuner:
    """Ray Tune's tuner, set up for the plan."""
    resources = sweep.resources
    # A group's own workers have all the processors: its trial only waits for them, so it asks for none.
    alone = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    needs = tune.PlacementGroupFactory([{"memory": 1e6} if resources.workers_per_trial > 1 else alone])
    trainable = tune.with_parameters(_run, sweep=sweep, parent=parent)
    return tune.Tuner(
        tune.with_resources(trainable, needs),
        param_space=None if plan.searcher else {"point": tune.grid_search(plan.points)},
        tune_config=tune.TuneConfig(
            num_samples=plan.count if plan.searcher else 1,
            search_alg=plan.searcher,
            scheduler=plan.scheduler,
            max_concurrent_trials=resources.max_concurrent or None,
            reuse_actors=reuses_workers(sweep),
            time_budget_s=None if deadline is None else max(deadline - time.monotonic(), 1),
        ),
        run_config=tune.RunConfig(
            name=sweep.name,
            storage_path=str(sweep.tune_folder.parent),
            failure_config=tune.FailureConfig(max_failures=resources.max_failures),
            callbacks=callbacks,
            verbose=0,  # the trials log a line an epoch themselves
        ),
    )


def reuses_workers(sweep: Sweep) -> bool:
    """May a trial run in the process of the one before? Importing torch takes longer than a short trial.

    Not after a trial that may have been pruned: it goes on to the end of its epoch, and Tune waits two seconds for
    that, then it gives up the trial that should come next. Not on a GPU: an error of CUDA leaves the process useless.
    """
    resources = sweep.resources
    on_gpu = resources.gpus_per_worker > 0 or sweep.options.device.startswith("cuda")
    return resources.workers_per_trial == 1 and not find_scheduler(sweep.scheduler).prunes and not on_gpu


def _run(config: dict[str, Any], *, sweep: Sweep, parent: str) -> None:
    """The function that Tune calls in a worker."""
    run_trial(point_of(config), sweep=sweep, parent=parent)
