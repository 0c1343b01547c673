"""A sweep: stages that all trials share are trained once, then Ray Tune runs the trials, each in its own MLflow run."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from adafocus.config import STAGES, Config, override, stage_key, stage_reads
from adafocus.loader import ClipLoader
from adafocus.stages.trainer import EpochReport, Options
from pipelines.ray_session import ray_session
from pipelines.record import complete, describe
from pipelines.space import Space
from pipelines.tracking import Ending, Run
from pipelines.train import Places, train_stages

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Machines:
    """How a sweep uses the cluster; nothing here changes a result."""

    num_samples: int = 1
    cpus_per_trial: float = 0
    """0: the cluster's CPUs shared by the trials that run at once."""
    gpus_per_trial: float = 0
    max_concurrent: int = 0
    """Trials at once; 0: as many as fit."""
    max_failures: int = 3
    """Times that a trial whose worker died is started again, from its last state."""
    ray_address: str | None = None


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is tried, on what, and where."""

    name: str
    config: Config
    recipe: str
    space: Space
    places: Places
    options: Options
    machines: Machines = Machines()


@dataclass(frozen=True, slots=True)
class TrialResult:
    """How a trial ended."""

    name: str
    params: dict[str, Any]
    metrics: dict[str, float]
    checkpoint: Path | None
    error: str = ""

    @property
    def score(self) -> float:
        """The data set's metric on the evaluation split, in percent."""
        return self.metrics.get("score", 0.0)


def shared_stages(keys: set[str]) -> tuple[str, ...]:
    """Stages whose result no key of the space changes: the same for all trials."""
    return tuple(stage for stage in STAGES if not keys.intersection(stage_reads(stage)))


def run_sweep(sweep: Sweep) -> list[TrialResult]:
    """Run every trial and return how each ended; a failed trial does not stop the others.

    Raises UserError for what the user can mend, before or while the shared stages are trained.
    """
    sweep.space.check(sweep.config)
    places, name = sweep.places, sweep.name
    info, digest = ClipLoader.describe(places.shards)
    tracker = places.tracker()
    parent = tracker.run(info.name, "sweep", name, sweep=name)
    parent.params(
        {"recipe": sweep.recipe, **{f"space.{key}": str(value) for key, value in _shown(sweep.space).items()}}
    )
    parent.dataset(info, digest, places.shards)
    try:
        with ray_session(sweep.machines.ray_address, dashboard=True, worker_logs=True):
            _share(sweep, parent.run_id)
            results = [_result(row) for row in _tuner(sweep, parent.run_id).fit()]
    except BaseException as error:
        status: Ending = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        for run in (*tracker.unfinished("trial", sweep=name), parent):
            run.finish(status, repr(error))
        raise
    failed = [result for result in results if result.error]
    ranked = sorted(results, key=lambda result: -result.score)
    parent.json("trials.json", [{"trial": each.name, "score": each.score, "error": each.error} for each in ranked])
    parent.metrics({"trials": len(results), "trials_failed": len(failed)})
    parent.finish("FAILED" if failed else "FINISHED")
    return results


def _share(sweep: Sweep, parent: str) -> None:
    """Train the stages that all trials share, in one task with the whole machine, or a trial's share of GPUs."""
    shared = shared_stages(sweep.space.keys)
    if not shared:
        return
    log.info("stages that all trials share: %s", ", ".join(shared))
    cpus, gpus = _per_trial(sweep)
    cpus = cpus if gpus else int(ray.cluster_resources().get("CPU", 1))
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=sweep.machines.max_failures)(_train_shared)
    try:
        ray.get(task.remote(sweep, shared, parent))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None  # as it was raised in the worker, without Ray's trace around it


def _tuner(sweep: Sweep, parent: str) -> tune.Tuner:
    cpus, gpus = _per_trial(sweep)
    trainable = tune.with_parameters(_trial, sweep=sweep, parent=parent)
    return tune.Tuner(
        tune.with_resources(trainable, {"cpu": cpus, "gpu": gpus}),
        param_space=_param_space(sweep.space),
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            num_samples=sweep.machines.num_samples,
            max_concurrent_trials=sweep.machines.max_concurrent or None,
        ),
        run_config=tune.RunConfig(
            name=sweep.name,
            storage_path=str(sweep.places.runs / "tune"),
            failure_config=tune.FailureConfig(max_failures=sweep.machines.max_failures),
            verbose=0,  # the trials log a line an epoch themselves
        ),
    )


def _train_shared(sweep: Sweep, stages: tuple[str, ...], parent: str) -> None:
    """The stages that all trials share, in one Ray task."""
    _start_worker()
    run = Run.open(sweep.places.tracker(), parent)

    def report(row: EpochReport) -> None:
        run.metrics(row.metrics, row.clock, row.time_ms)
        log.info("shared: %s", row.line())

    train_stages(sweep.config, sweep.places, sweep.options, report, stages)


def _trial(params: dict[str, Any], *, sweep: Sweep, parent: str) -> None:
    """One trial, in a worker of Ray Tune."""
    _start_worker()
    config, places = override(sweep.config, params), sweep.places
    info, digest = ClipLoader.describe(places.shards)
    trial = stage_key(config, STAGES[-1], digest)  # not Tune's id: a sweep that starts again finds its runs
    shown = " ".join(f"{key.split('.')[-1]}={value}" for key, value in params.items()) or "single"
    run = places.tracker().run(info.name, "trial", shown, parent=parent, sweep=sweep.name, trial=trial)
    describe(run, config, places, sweep.recipe, sweep.options.device)
    score = {"score": 0.0}

    def report(row: EpochReport) -> None:
        run.metrics(row.metrics, row.clock, row.time_ms)
        score["score"] = row.metrics.get(f"{row.stage}/val_{info.metric}", score["score"])
        tune.report({**row.metrics, **score, "clock": row.clock})
        log.info("%s: %s", shown, row.line())

    try:
        with run.system_metrics():
            folder = train_stages(config, places, sweep.options, report)
    except Exception as error:
        run.finish("FAILED", f"{type(error).__name__}: {error}")
        raise
    complete(run, folder, places)
    run.finish()
    tune.report({**score, "clock": sum(getattr(config, stage).epochs for stage in STAGES), "folder": str(folder)})


def _start_worker() -> None:
    """Log to the driver's terminal, and use as many threads as Ray gave this worker CPUs."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    cpus = ray.get_runtime_context().get_assigned_resources().get("CPU", 1)
    torch.set_num_threads(max(1, int(cpus)))


def _per_trial(sweep: Sweep) -> tuple[float, float]:
    """CPUs and GPUs of one trial: as asked for, else the cluster's CPUs over the trials that run at once."""
    machines, total = sweep.machines, int(ray.cluster_resources().get("CPU", 1))
    trials = machines.num_samples * math.prod(len(values) for values in sweep.space.grid.values())
    at_once = min(trials, machines.max_concurrent or trials, total)
    return machines.cpus_per_trial or max(1, total // at_once), machines.gpus_per_trial


def _param_space(space: Space) -> dict[str, Any]:
    samplers: dict[str, Any] = {key: tune.grid_search(values) for key, values in space.grid.items()}
    for key, (sampler, arguments) in space.sample.items():
        samplers[key] = tune.choice(arguments) if sampler == "choice" else getattr(tune, sampler)(*arguments)
    return samplers


def _shown(space: Space) -> dict[str, Any]:
    return {**space.grid, **{key: f"{name}({', '.join(map(str, a))})" for key, (name, a) in space.sample.items()}}


def _result(row: Any) -> TrialResult:
    metrics = {key: value for key, value in (row.metrics or {}).items() if isinstance(value, int | float)}
    folder = (row.metrics or {}).get("folder")
    name = " ".join(f"{key}={value}" for key, value in row.config.items()) or "single"
    error = str(row.error).strip().splitlines()[-1] if row.error else ""
    return TrialResult(name, row.config, metrics, Path(folder) if folder else None, error)
