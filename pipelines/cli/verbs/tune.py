"""The verb tune: runs a sweep, or goes on with one."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.options import (
    DEFAULT_RUNS,
    RECIPE_HELP,
    SHARDS_HELP,
    Changes,
    Device,
    EvalEvery,
    NumWorkers,
    RayAddress,
    RunsFolder,
    SaveEvery,
    ScaleLr,
)
from pipelines.cli.values import read_config, training_options
from pipelines.sweeps.search.scheduler_table import SCHEDULERS
from preprocessing.schema import UserError

if TYPE_CHECKING:
    from adafocus.config.schema import Config
    from pipelines.sweeps.driver import SweepOutcome
    from pipelines.sweeps.search.space import Space
    from pipelines.sweeps.sweep import Sweep


class Search(StrEnum):
    """Where the next trial comes from: draws (random), or what is known of the trials before (optuna: TPE)."""

    RANDOM = "random"
    OPTUNA = "optuna"


def register(app: typer.Typer) -> None:
    """Add this file's verb to the command line."""
    app.command(rich_help_panel="Training")(tune)


RESOURCE_OPTIONS = {
    **{name: name for name in ("workers_per_trial", "cpus_per_worker", "gpus_per_worker", "max_concurrent")},
    **{"max_failures": "max_failures", "time_budget": "time_budget_h", "ray_address": "ray_address"},
}
"""Options that say how a sweep uses the cluster -> their fields of `Resources`."""
CHANGEABLE = {*RESOURCE_OPTIONS, "num_samples", "device", "num_workers", "eval_every", "save_every", "resume", "runs"}
"""Options that may change when a sweep goes on; the others define it."""


def tune(
    context: typer.Context,
    recipe: Annotated[str | None, typer.Option(help=RECIPE_HELP)] = None,
    shards: Annotated[str | None, typer.Option(help=SHARDS_HELP)] = None,
    runs: RunsFolder = DEFAULT_RUNS,
    name: Annotated[str | None, typer.Option(help="Name of the sweep; else made of recipe and space.")] = None,
    resume: Annotated[str | None, typer.Option(help="Go on with this sweep, as its record defines it.")] = None,
    grid: Annotated[list[str] | None, typer.Option(help="Try every value: --grid ppo.gamma=0.5,0.7.")] = None,
    sample: Annotated[list[str] | None, typer.Option(help="Draw: --sample ppo.lr=loguniform:1e-5:1e-3.")] = None,
    space: Annotated[str | None, typer.Option(help="YAML file with maps grid and sample; `recipe`: its own.")] = None,
    num_samples: Annotated[int, typer.Option(help="Draws; a grid is tried in full for each.", min=1)] = 1,
    scheduler: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(SCHEDULERS)}: asha stops weak trials early.", autocompletion=lambda: list(SCHEDULERS)
        ),
    ] = "fifo",
    search: Annotated[Search, typer.Option(help="optuna draws where earlier trials were good (TPE).")] = Search.RANDOM,
    workers_per_trial: Annotated[int, typer.Option(help="Processes that share a trial's batches.", min=1)] = 1,
    cpus_per_worker: Annotated[float, typer.Option(help="CPUs of each worker; 0: shared evenly.", min=0)] = 0,
    gpus_per_worker: Annotated[float, typer.Option(help="GPUs of each worker.", min=0)] = 0,
    max_concurrent: Annotated[int, typer.Option(help="Trials at once; 0: as many as fit.", min=0)] = 0,
    max_failures: Annotated[
        int, typer.Option(help="Times that a trial whose worker died is started again.", min=0)
    ] = 3,
    time_budget: Annotated[float, typer.Option(help="Hours after which the sweep stops; 0: never.", min=0)] = 0,
    changes: Changes = None,
    scale_lr: ScaleLr = False,
    device: Device = "auto",
    num_workers: NumWorkers = 0,
    eval_every: EvalEvery = 1,
    save_every: SaveEvery = 300,
    ray_address: RayAddress = None,
) -> None:
    """Run a sweep with Ray Tune; stages that all trials share are trained once.

    Killed or interrupted it goes on by the same command, or by --resume NAME.
    """
    from pipelines.machine.checks import say_troubles
    from pipelines.paths import Places
    from pipelines.ray_runtime.resources import Resources
    from pipelines.sweeps.driver import run_sweep
    from pipelines.sweeps.sweep import Sweep
    from pipelines.sweeps.sweep_file import default_name, load_sweep

    sources = {key: context.get_parameter_source(key) for key in context.params}
    given = {key for key, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    resources = {name: context.params[option] for option, name in RESOURCE_OPTIONS.items()}
    if resume is not None:
        _refuse_fixed(resume, given)
        changeable = dict(device=device, num_workers=num_workers, eval_every=eval_every, save_every_s=save_every)
        sweep = _changed(load_sweep(runs, resume), given, resources, num_samples, changeable)
    elif recipe is None or shards is None:
        raise UserError("give --recipe and --shards, or --resume and the name of a sweep")
    else:
        config = read_config(recipe, changes, scale_lr)
        sweep = Sweep(
            name=name or "",
            config=config,
            recipe=recipe,
            space=_space_of(grid, sample, space, recipe, config),
            places=Places.of(shards, runs),
            options=training_options(device, num_workers, eval_every, save_every),
            resources=Resources(**resources),
            num_samples=num_samples,
            scheduler=scheduler,
            search=search.value,
        )
        sweep = replace(sweep, name=sweep.name or default_name(sweep))
    say_troubles(num_workers)
    _show(sweep, run_sweep(sweep))


def _refuse_fixed(resume: str, given: set[str]) -> None:
    """Raise UserError for an option that belongs to the sweep's definition."""
    if fixed := sorted(given - CHANGEABLE):
        option = "--set" if fixed[0] == "changes" else f"--{fixed[0].replace('_', '-')}"
        raise UserError(f"--resume {resume} takes {option} from the sweep itself: leave it out")


def _space_of(
    grid: list[str] | None, sample: list[str] | None, space: str | None, recipe: str, config: Config
) -> Space:
    """The search space that the options define."""
    from pipelines.sweeps.search.space_text import RECIPE, parse_space, recipe_space

    file = recipe_space(recipe, config) if space == RECIPE else Path(space) if space else None
    return parse_space(config, grid or [], sample or [], file)


def _changed(
    sweep: Sweep, given: set[str], resources: dict[str, Any], num_samples: int, changeable: dict[str, Any]
) -> Sweep:
    """The sweep with the options of this command line."""
    of_this_start = {"time_budget_h", "ray_address"}  # not of the one before
    given_resources = {key: value for key, value in resources.items() if key in given | of_this_start}
    options = {key: value for key, value in changeable.items() if key.removesuffix("_s") in given}
    return replace(
        sweep,
        resources=replace(sweep.resources, **given_resources),
        options=replace(sweep.options, **options),
        num_samples=num_samples if "num_samples" in given else sweep.num_samples,
    )


def _show(sweep: Sweep, outcome: SweepOutcome) -> None:
    """Print how each trial ended, and end with status 1 if one failed."""
    from pipelines.sweeps.outcomes import STATUSES

    counts = dict.fromkeys(STATUSES, 0)
    for trial in outcome.trials:
        counts[trial.status] += 1
        score = "-" if trial.score is None else f"{trial.score:.1f}"
        reason = f", {trial.reason}" if trial.reason else ""
        typer.echo(f"{trial.name}: " + (f"FAILED: {trial.error}" if trial.error else f"score {score}{reason}"))
    total = f"{len(outcome.trials)} trials, {', '.join(f'{n} {word}' for word, n in counts.items() if n)}"
    typer.echo(f"sweep {sweep.name}: {total}")
    typer.echo(outcome.reuse.line())
    if counts["failed"] or counts["stopped"]:
        typer.echo(f"`adafocus tune --resume {sweep.name}` runs those again that did not end well", err=True)
    if counts["failed"]:
        typer.echo(f"{counts['failed']} of {len(outcome.trials)} trials failed", err=True)
        raise typer.Exit(1)
