"""A sweep: what is tried, on what, how and where."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.methods import Method, method_of
from adafocus.methods.identity import stage_folders, stage_key, stage_reads
from adafocus.training.reports import Options
from pipelines.paths import Places
from pipelines.ray_runtime.resources import Resources
from pipelines.sweeps.search.scheduler_table import find_scheduler
from pipelines.sweeps.search.space import Point, Space, show_value
from preprocessing.schema import UserError

Search = Literal["random", "optuna"]
TUNE_FOLDER = "tune"
"""Folder of Ray Tune's files, below the folder of runs."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A search over configurations of one recipe: its trials differ in the settings of the space."""

    name: str
    config: Config
    recipe: str
    space: Space
    places: Places
    options: Options = field(default_factory=Options)
    resources: Resources = field(default_factory=Resources)
    num_samples: int = 1
    scheduler: str = "fifo"
    """Name in `scheduler_table.SCHEDULERS`."""
    search: Search = "random"
    started_ms: int = field(default_factory=lambda: int(time.time() * 1000))
    """When it began, through all its restarts."""
    version: str = ""
    """Of the shards that it began with."""
    store: str = ""
    """Where its MLflow runs are, in the words of `sweep_file.describe_store`."""

    def check(self) -> None:
        """Raise UserError for what cannot be run, before anything is started."""
        check_name(self.name)
        self.space.check(self.config)
        if self.num_samples < 1 or self.resources.workers_per_trial < 1:
            raise UserError("--num-samples and --workers-per-trial have to be 1 or more")
        if self.search == "optuna" and self.space.grid:
            key, values = next(iter(self.space.grid.items()))
            sample = f"--sample {key}=choice:{':'.join(map(show_value, values))}"
            raise UserError(f"--search optuna draws every value, and a grid is tried in full: use {sample}")
        if self.search == "optuna" and not self.space.sample:
            raise UserError("--search optuna has nothing to draw: give --sample KEY=... or --space recipe")
        if self.num_samples > 1 and not self.space.sample:
            raise UserError(
                f"--num-samples {self.num_samples} without --sample would repeat the same trials: draw something, "
                "or try several seeds by --grid seed=0,1,2"
            )
        if find_scheduler(self.scheduler).prunes and not self.space.keys:
            raise UserError(
                f"--scheduler {self.scheduler} compares trials, and there is only one: give --grid, --sample or --space"
            )

    @property
    def method(self) -> Method:
        """The one method of all trials."""
        return method_of(self.config)

    @property
    def shared(self) -> tuple[str, ...]:
        """Stages that are the same for all trials."""
        method, keys = self.method, self.space.keys
        return tuple(stage for stage in method.stage_names if not keys.intersection(stage_reads(method, stage)))

    @property
    def judged(self) -> str:
        """The stage in which trials are compared while they run: the first one that the space changes."""
        stages = self.method.stage_names
        return stages[min(len(self.shared), len(stages) - 1)]

    @property
    def num_trials(self) -> int:
        """Number of all trials."""
        return self.num_samples if self.search == "optuna" else len(self.space.points(self.config, self.num_samples))

    @property
    def tune_folder(self) -> Path:
        """Where Ray Tune keeps its files of this sweep."""
        return self.places.runs / TUNE_FOLDER / self.name

    @property
    def groups_folder(self) -> Path:
        """Where Ray Train keeps its files of the trials' groups of workers."""
        return self.tune_folder / "groups"

    def trial_key(self, point: Point, version: str) -> str:
        """The key of a trial's last stage, which identifies the trial in MLflow."""
        return stage_key(override(self.config, point), self.method.last, version)

    def folders(self, point: Point, version: str) -> list[Path]:
        """Where the results of a trial's stages are or will be."""
        return stage_folders(override(self.config, point), self.places.runs, version)


def check_name(name: str) -> None:
    """Raise UserError for a name that cannot be a file's name."""
    if not name or Path(name).name != name or name.startswith("."):
        raise UserError(f"{name!r} is no name for a sweep: it becomes a file's name")
