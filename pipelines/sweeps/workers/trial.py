"""One trial of a sweep, in a worker of Ray Tune.

It leaves finished stages on disk and epochs in an MLflow run, and reports every epoch to Tune.
"""

from __future__ import annotations

import logging
from functools import partial

import ray.train
from ray import tune

from adafocus import checkpoint
from adafocus.config.overrides import override
from adafocus.training.stage_lock import StageLockLostError
from pipelines.logs import in_a_line
from pipelines.ray_runtime.worker import start_worker
from pipelines.sweeps.search.space import Point, show_point
from pipelines.sweeps.sweep import Sweep
from pipelines.sweeps.workers.outages import OutageError, convert_outages
from pipelines.sweeps.workers.stage_worker import train_in_worker
from pipelines.sweeps.workers.tune_reporter import score_values
from pipelines.sweeps.workers.worker_group import WorkersDiedError, train_in_group
from pipelines.tracking.client import Tracker
from pipelines.tracking.score import score_of_stages
from pipelines.training.trial_logger import log_result, log_setup
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
    key, name = sweep.trial_key(point, dataset.version), show_point(point)
    with convert_outages():
        run = Tracker.at(places, patient=True).run(
            dataset.info.name, "trial", name, parent=parent, sweep=sweep.name, trial=key
        )
    try:
        with convert_outages():
            run.set_point(point)
            log_setup(run, config, places, sweep.recipe, sweep.options.device)
            train = partial(
                train_in_worker, config, sweep, sweep.method.stage_names, run.run_id, name, dataset.info.metric
            )
            if sweep.resources.workers_per_trial > 1:
                train_in_group(partial(train, ray.train.report), sweep.resources, sweep.groups_folder, in_trial=True)
            else:
                train(tune.report)
            folder = sweep.folders(point, dataset.version)[-1]
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
    finished = [each for each in sweep.folders(point, dataset.version) if (each / checkpoint.META).exists()]
    score = score_of_stages(map(checkpoint.read_meta, finished))
    tune.report({**score_values(score), "folder": str(folder)})
