"""Training of one configuration through all stages, without Ray, with every epoch logged to MLflow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from adafocus import distributed
from adafocus.config.schema import Config
from adafocus.methods import method_of
from adafocus.methods.identity import stage_key
from adafocus.training.reports import EpochReport, Options
from adafocus.training.stage_runner import epochs_left, needed_stages, run_stage
from pipelines.logs import in_a_line
from pipelines.paths import Places
from pipelines.tracking.client import Tracker
from pipelines.tracking.run import Run
from pipelines.tracking.score import SCORE, score_name
from pipelines.training.epoch_reporter import EpochReporter, Sink
from pipelines.training.stage_progress import stage_progress
from pipelines.training.trial_logger import log_result, log_setup
from preprocessing.shards.index import read_metadata

log = logging.getLogger(__name__)


def train_stages(
    config: Config,
    places: Places,
    options: Options,
    report: Callable[[EpochReport], None],
    stages: tuple[str, ...] | None = None,
    name: str = "",
) -> Path:
    """Train the stages that are not finished yet, in order (None: all of the method). Returns the last one's folder.

    A stage is left out if nothing needs it, because a later one is finished. Rank 0 shows the progress; `name`: of the
    trial, where several run side by side.
    """
    folder = places.runs
    where: dict[str, Any] = {"shards": places.shards, "runs": places.runs}
    needed = needed_stages(stages or method_of(config).stage_names, config, **where)
    left = epochs_left(needed, config, **where)
    for stage in needed:
        epochs = left.pop(stage, 0)
        with stage_progress(epochs, sum(left.values()), name) if distributed.rank() == 0 else nullcontext() as watch:
            folder = run_stage(stage, config, **where, options=options, report=report, watch=watch)
    return folder


def to_mlflow(run: Run, metric: str) -> Sink:
    """The sink that logs reports with a run; what is the score by the data set's metric has that name in all methods
    and stages too."""

    def sink(rows: Sequence[EpochReport]) -> None:
        run.log_rows((row.metrics | _score(row, metric), row.clock, row.time_ms) for row in rows)

    return sink


def _score(row: EpochReport, metric: str) -> dict[str, float]:
    value = row.metrics.get(score_name(row.stage, metric))  # not every epoch is evaluated
    return {} if value is None else {SCORE: value}


def train(config: Config, recipe: str, places: Places, options: Options, name: str) -> Path:
    """Train a configuration, logged as the run `name`. Returns the folder of the finished model.

    Killed and started again under the same name, it is continued in the same run; another configuration of that name,
    or another data set, has a run of its own.
    """
    dataset = read_metadata(places.shards)
    key = stage_key(config, method_of(config).last, dataset.version)
    run = Tracker.at(places).run(dataset.info.name, "trial", name, sweep="", trial=name, key=key)
    log_setup(run, config, places, recipe, options.device)

    try:
        with run.system_metrics(), EpochReporter(to_mlflow(run, dataset.info.metric)) as reporter:

            def report(row: EpochReport) -> None:
                reporter(row)
                log.info("%s", row.line())

            folder = train_stages(config, places, options, report)
    except KeyboardInterrupt:
        run.finish("KILLED", "interrupted")
        raise
    except Exception as error:
        run.finish("FAILED", in_a_line(error))
        raise
    log_result(run, folder, places)
    run.finish()
    return folder
