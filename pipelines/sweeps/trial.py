"""One trial of a sweep, in a worker of Ray Tune, and the stages that all trials share, in a Ray task.

Goes in: a sweep and what this trial changes of it; comes out: finished stages on disk, an MLflow run, and a report to
Tune after every epoch: `clock` counts epochs through all stages, and `judged_epoch` and `judged_score` are there only
in the stage in which trials are compared.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
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
from pipelines.sweeps.space import Point
from pipelines.sweeps.sweep import Sweep, show_point
from pipelines.sweeps.worker_group import WorkersDiedError, own_group_id, train_in_group
from pipelines.tracking.client import Tracker
from pipelines.tracking.outages import is_outage
from pipelines.tracking.score import score_name, score_of_stages
from pipelines.training.epoch_reporter import EpochReporter, Sink
from pipelines.training.train import to_mlflow, train_stages
from pipelines.training.trial_logger import log_result, log_setup
from preprocessing.schema import UserError
from preprocessing.shards.index import read_metadata

log = logging.getLogger(__name__)

Tell = Callable[[dict[str, Any]], None]

PAUSE_S = 30.0
"""How long a worker waits after an outage before it is started again."""


class OutageError(RuntimeError):
    """MLflow or the storage was out of reach: the trial is worth another start."""


def run_trial(point: Point, *, sweep: Sweep, parent: str) -> None:
    """Train a trial through all stages; what goes wrong is logged and told to Tune as `failure`, not raised.

    For Tune starts again whatever raises, and only a worker that died or an outage is worth it: anything else would
    raise again.
    """
    start_worker()
    config, places = override(sweep.config, point), sweep.places
    dataset = read_metadata(places.shards)
    key, shown = sweep.trial_key(point, dataset.digest), show_point(point)
    with naming_outages():
        run = Tracker.at(places).run(dataset.info.name, "trial", shown, parent=parent, sweep=sweep.name, trial=key)
    try:
        with naming_outages():
            run.set_point(point)
            log_setup(run, config, places, sweep.recipe, sweep.options.device)
            work = partial(_train, config, sweep, sweep.method.stage_names, run.run_id, shown, dataset.info.metric)
            if sweep.resources.workers_per_trial > 1:
                groups = places.runs / "tune" / sweep.name / "groups"
                train_in_group(partial(work, ray.train.report), sweep.resources, groups, in_trial=True)
            else:
                work(tune.report)
            folder = sweep.folders(point, dataset.digest)[-1]
            log_result(run, folder, places)
            run.finish()
    except (StageLockLostError, WorkersDiedError, OutageError):
        raise
    except Exception as error:
        reason = in_a_line(error)
        log.error("%s failed: %s", shown, reason)
        run.try_to_finish("FAILED", reason)
        tune.report({"score": 0.0, "failure": reason})
        return
    finished = [each for each in sweep.folders(point, dataset.digest) if (each / checkpoint.META).exists()]
    score = score_of_stages(map(checkpoint.read_meta, finished))
    tune.report({**_shown_to_tune(score), "folder": str(folder)})


def train_shared(sweep: Sweep, parent: str) -> None:
    """The stages that all trials share, in one Ray task."""
    start_worker()
    metric = read_metadata(sweep.places.shards).info.metric
    work = partial(_train, sweep.config, sweep, sweep.shared, parent, "shared", metric)
    if sweep.resources.workers_per_trial > 1:
        groups = sweep.places.runs / "tune" / sweep.name / "groups"
        train_in_group(partial(work, None), sweep.resources, groups, in_trial=False)
    else:
        work(None)


def _train(
    config: Config, sweep: Sweep, stages: tuple[str, ...], run_id: str, shown: str, metric: str, tell: Tell | None
) -> None:
    """What each worker of a trial does: train, and report every epoch to MLflow (rank 0) and to Ray (every rank)."""
    start_worker()
    check_gpu(sweep)
    first, started_ms = distributed.rank() == 0, time.time() * 1000

    def report(row: EpochReport) -> None:
        reporter(row)
        if first and row.time_ms >= started_ms:  # else it is told again, from a stage that was found
            log.info("%s: %s", shown, row.line())

    with naming_outages():  # here, for on its way out of a group an error loses its cause
        run = Tracker.at(sweep.places).open(run_id)
        sinks: list[Sink] = [to_mlflow(run)] if first else []
        group = sweep.resources.workers_per_trial > 1
        if tell:
            told = partial(_with_group, tell) if group else tell
            sinks.append(ToTune(told, sweep.judged, sweep.method.first_epoch(config, sweep.judged), metric))
        # Of several workers on a machine one tells what the machine does.
        teller = not group or ray.train.get_context().get_local_rank() == 0
        system = run.system_metrics() if teller else contextlib.nullcontext()
        # Tune learns of a group's epochs by polling, one at a time: workers with short ones would be long done before
        # it could prune them.
        with system, EpochReporter(*sinks, ahead=1 if group else 0) as reporter:
            train_stages(config, sweep.places, sweep.options, report, stages)


@contextlib.contextmanager
def naming_outages() -> Iterator[None]:
    """Raise what may work a minute later as OutageError, after a pause: who waits for a server need not hurry."""
    try:
        yield
    except OutageError:
        raise
    except Exception as error:
        if not is_outage(error):
            raise
        log.error("out of reach: %s", error)
        time.sleep(PAUSE_S)
        raise OutageError(in_a_line(error)[:1000]) from None


def check_gpu(sweep: Sweep) -> None:
    """Raise UserError if this worker has a GPU of Ray's that torch cannot use: `auto` would take the CPU for days."""
    gpus, device = sweep.resources.gpus_per_worker, sweep.options.device
    if gpus and device.startswith(("auto", "cuda")) and not torch.cuda.is_available():
        raise UserError(
            f"Ray gave this worker on {socket.gethostname()} {gpus:g} GPUs, and torch {torch.__version__} finds none: "
            "install its CUDA build and the driver there, or give --gpus-per-worker 0 and --device cpu"
        )


def _with_group(tell: Tell, row: dict[str, Any]) -> None:
    tell({**row, "group": own_group_id()})


class ToTune:
    """Tells Tune every epoch: its metrics, the clock, the newest score, and what trials are compared by."""

    def __init__(self, tell: Tell, judged: str, first: int, metric: str) -> None:
        """`first`: epochs before the stage `judged`, on the clock."""
        self._tell, self._judged, self._first, self._metric = tell, judged, first, metric
        self._score: float | None = None

    def __call__(self, rows: Sequence[EpochReport]) -> None:
        for row in rows:
            told: dict[str, Any] = {**row.metrics, "clock": row.clock}
            score = row.metrics.get(score_name(row.stage, self._metric))  # not every epoch is evaluated
            if score is not None:
                self._score = score
                if row.stage == self._judged:
                    told |= {"judged_epoch": row.clock - self._first, "judged_score": score}
            self._tell({**told, **_shown_to_tune(self._score)})


def _shown_to_tune(score: float | None) -> dict[str, float | bool]:
    """A score as Tune's searchers want it, which take nothing but numbers."""
    return {"score": 0.0 if score is None else score, "evaluated": score is not None}


def warm_up() -> None:
    """Nothing but the imports of this module."""
