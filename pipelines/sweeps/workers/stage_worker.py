"""Training in one worker of a sweep: the stages that all trials share, in a Ray task, or a trial's, for `trial`.

What only trials or groups of workers need of Ray is imported there: it would delay the first epoch by a second.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from functools import partial
from typing import Any

import torch

from adafocus import distributed
from adafocus.config.schema import Config
from adafocus.training.reports import EpochReport
from pipelines.ray_runtime.worker import start_worker
from pipelines.sweeps.sweep import Sweep
from pipelines.sweeps.workers.outages import convert_outages
from pipelines.sweeps.workers.tune_reporter import ReportFunction, TuneReporter
from pipelines.tracking.client import Tracker
from pipelines.training.epoch_reporter import EpochReporter, Sink
from pipelines.training.train import to_mlflow, train_stages
from preprocessing.schema import UserError
from preprocessing.shards.index import read_metadata

log = logging.getLogger(__name__)


def train_shared(sweep: Sweep, parent: str) -> None:
    """Train the stages that all trials share; `parent` is the id of the sweep's run."""
    start_worker()
    metric = read_metadata(sweep.places.shards).info.metric
    train = partial(train_in_worker, sweep.config, sweep, sweep.shared, parent, "shared", metric)
    if sweep.resources.workers_per_trial > 1:
        from pipelines.sweeps.workers.worker_group import train_in_group

        train_in_group(partial(train, None), sweep.resources, sweep.groups_folder, in_trial=False)
    else:
        train(None)


def train_in_worker(
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
        run = Tracker.at(sweep.places, patient=True).open(run_id)
        sinks: list[Sink] = [to_mlflow(run, metric)] if first else []
        group = sweep.resources.workers_per_trial > 1
        if report:
            epochs_before = sweep.method.first_epoch(config, sweep.judged)
            sinks.append(
                TuneReporter(partial(_with_group, report) if group else report, sweep.judged, epochs_before, metric)
            )
        # Of several workers on a machine one logs what the machine does.
        logs_machine = not group or _local_rank() == 0
        system = run.system_metrics() if logs_machine else contextlib.nullcontext()
        # Tune learns of a group's epochs by polling, one at a time: workers with short ones would be long done before
        # it could prune them.
        with system, EpochReporter(*sinks, ahead=1 if group else 0) as reporter:
            train_stages(config, sweep.places, sweep.options, report_epoch, stages, name)


def _local_rank() -> int:
    """Number of this worker among those of its group on this machine."""
    import ray.train

    return int(ray.train.get_context().get_local_rank())


def _with_group(report: ReportFunction, values: dict[str, Any]) -> None:
    """Report an epoch together with the id of the worker's group."""
    from pipelines.sweeps.workers.worker_group import own_group_id

    report({**values, "group": own_group_id()})


def check_gpu(sweep: Sweep) -> None:
    """Raise UserError if this worker has a GPU of Ray's that torch cannot use: `auto` would take the CPU for days."""
    gpus, device = sweep.resources.gpus_per_worker, sweep.options.device
    if gpus and device.startswith(("auto", "cuda")) and not torch.cuda.is_available():
        raise UserError(
            f"Ray gave this worker on {socket.gethostname()} {gpus:g} GPUs, and torch {torch.__version__} finds none: "
            "install its CUDA build and the driver there, or give --gpus-per-worker 0 and --device cpu"
        )
