"""One trial of a sweep, in a worker of Ray Tune, and the stages that all trials share, in a Ray task.

Both leave finished stages on disk and epochs in an MLflow run; a trial reports every epoch to Tune too.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from functools import partial
from typing import Any

import ray
import ray.train
import torch
from ray import tune

from adafocus import checkpoint, distributed
from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.training.reports import EpochReport
from adafocus.training.stage_lock import StageLockLostError
from pipelines.logs import in_a_line
from pipelines.ray_runtime.worker import start_worker
from pipelines.sweeps.outages import OutageError, convert_outages
from pipelines.sweeps.search.space import Point, show_point
from pipelines.sweeps.sweep import Sweep
from pipelines.sweeps.tune_reporter import ReportFunction, TuneReporter, score_values
from pipelines.sweeps.worker_group import WorkersDiedError, own_group_id, train_in_group
from pipelines.tracking.client import Tracker
from pipelines.tracking.score import score_of_stages
from pipelines.training.epoch_reporter import EpochReporter, Sink
from pipelines.training.train import to_mlflow, train_stages
from pipelines.training.trial_logger import log_result, log_setup
from preprocessing.schema import UserError
from preprocessing.shards.index import read_metadata

log = logging.getLogger(__name__)


def run_trial(point: Point, *, sweep: Sweep, parent: str) -> None:
    """Train a trial through all stages; an error is logged and reported to Tune as `failure`, not raised.

    For Tune starts a trial again that raised an error, and only a worker that died or an outage is worth it: anything
    else would raise again.
    """
    start_worker()
    config, places = override(sweep.config, point), sweep.places
    dataset = read_metadata(places.shards)
    key, name = sweep.trial_key(point, dataset.digest), show_point(point)
    with convert_outages():
        run = Tracker.at(places).run(dataset.info.name, "trial", name, parent=parent, sweep=sweep.name, trial=key)
    try:
        with convert_outages():
            run.set_point(point)
            log_setup(run, config, places, sweep.recipe, sweep.options.device)
            train = partial(_train, config, sweep, sweep.method.stage_names, run.run_id, name, dataset.info.metric)
            if sweep.resources.workers_per_trial > 1:
                train_in_group(partial(train, ray.train.report), sweep.resources, sweep.groups_folder, in_trial=True)
            else:
                train(tune.report)
            folder = sweep.folders(point, dataset.digest)[-1]
            log_result(run, folder, places)
            run.finish()
    except (StageLockLostError, WorkersDiedError, OutageError):
        raise
    except Exception as error:
        reason = in_a_line(error)
        log.error("%s failed: %s", name, reason)
        run.try_to_finish("FAILED", reason)
        tune.report({"score": 0.0, "failure": reason})
        return
    finished = [each for each in sweep.folders(point, dataset.digest) if (each / checkpoint.META).exists()]
    score = score_of_stages(map(checkpoint.read_meta, finished))
    tune.report({**score_values(score), "folder": str(folder)})


def train_shared(sweep: Sweep, parent: str) -> None:
    """Train the stages that all trials share; `parent` is the id of the sweep's run."""
    start_worker()
    metric = read_metadata(sweep.places.shards).info.metric
    train = partial(_train, sweep.config, sweep, sweep.shared, parent, "shared", metric)
    if sweep.resources.workers_per_trial > 1:
        train_in_group(partial(train, None), sweep.resources, sweep.groups_folder, in_trial=False)
    else:
        train(None)


def _train(
    config: Config,
    sweep: Sweep,
    stages: tuple[str, ...],
    run_id: str,
    name: str,
    metric: str,
    report: ReportFunction | None,
) -> None:
    """Train in one worker: report every epoch to MLflow (rank 0) and, in a trial, by `report` to Ray (every rank)."""
    start_worker()
    check_gpu(sweep)
    first, started_ms = distributed.rank() == 0, time.time() * 1000

    def report_epoch(row: EpochReport) -> None:
        reporter(row)
        if first and row.time_ms >= started_ms:  # else it belongs to a stage that was finished before
            log.info("%s: %s", name, row.line())

    with convert_outages():  # here, for on its way out of a group an error loses its cause
        run = Tracker.at(sweep.places).open(run_id)
        sinks: list[Sink] = [to_mlflow(run, metric)] if first else []
        group = sweep.resources.workers_per_trial > 1
        if report:
            epochs_before = sweep.method.first_epoch(config, sweep.judged)
            sinks.append(
                TuneReporter(partial(_with_group, report) if group else report, sweep.judged, epochs_before, metric)
            )
        # Of several workers on a machine one logs what the machine does.
        logs_machine = not group or ray.train.get_context().get_local_rank() == 0
        system = run.system_metrics() if logs_machine else contextlib.nullcontext()
        # Tune learns of a group's epochs by polling, one at a time: workers with short ones would be long done before
        # it could prune them.
        with system, EpochReporter(*sinks, ahead=1 if group else 0) as reporter:
            train_stages(config, sweep.places, sweep.options, report_epoch, stages, name)


def _with_group(report: ReportFunction, values: dict[str, Any]) -> None:
    """Report an epoch together with the id of the worker's group."""
    report({**values, "group": own_group_id()})


def check_gpu(sweep: Sweep) -> None:
    """Raise UserError if this worker has a GPU of Ray's that torch cannot use: `auto` would take the CPU for days."""
    gpus, device = sweep.resources.gpus_per_worker, sweep.options.device
    if gpus and device.startswith(("auto", "cuda")) and not torch.cuda.is_available():
        raise UserError(
            f"Ray gave this worker on {socket.gethostname()} {gpus:g} GPUs, and torch {torch.__version__} finds none: "
            "install its CUDA build and the driver there, or give --gpus-per-worker 0 and --device cpu"
        )
