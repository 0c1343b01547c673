"""What a sweep is, kept as a file beside its results, so that it can go on by its name alone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from adafocus.config.overrides import flatten, from_flat, override
from adafocus.config.schema import Config
from adafocus.methods import Method, method_of
from adafocus.methods.identity import stage_folders, stage_key, stage_reads
from adafocus.training.reports import Options
from pipelines.paths import Places
from pipelines.ray_runtime.resources import Resources
from pipelines.sweeps.scheduler_table import find_scheduler
from pipelines.sweeps.space import Point, Space, show_value
from preprocessing.addresses import without_secrets
from preprocessing.files import write_file
from preprocessing.schema import UserError

Search = Literal["random", "optuna"]


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is tried, on what, how and where."""

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
    digest: str = ""
    """Of the shards that it began with."""
    store: str = ""
    """Where its MLflow runs are, as `shown_store` says it."""

    def check(self) -> None:
        """Raise UserError for what cannot be run, before anything is started."""
        record_path(self.places.runs, self.name)
        self.space.check(self.config)
        if self.num_samples < 1 or self.resources.workers_per_trial < 1:
            raise UserError("--num-samples and --workers-per-trial have to be 1 or more")
        if self.search == "optuna" and self.space.grid:
            key, values = next(iter(self.space.grid.items()))
            drawn = f"--sample {key}=choice:{':'.join(map(show_value, values))}"
            raise UserError(f"--search optuna draws every value, and a grid is tried in full: use {drawn}")
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
        """How many trials there are in all."""
        return self.num_samples if self.search == "optuna" else len(self.space.points(self.config, self.num_samples))

    @property
    def path(self) -> Path:
        """Where this record is kept."""
        return record_path(self.places.runs, self.name)

    def trial_key(self, point: Point, digest: str) -> str:
        """What names a trial in MLflow: the key of its last stage."""
        return stage_key(override(self.config, point), self.method.last, digest)

    def folders(self, point: Point, digest: str) -> list[Path]:
        """Where the results of a trial's stages are or will be."""
        config = override(self.config, point)
        return stage_folders(config, self.places.runs, digest)

    def save(self) -> None:
        """Keep the record."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_file(self.path, json.dumps(self._to_dict(), indent=1).encode())

    def definition(self) -> dict[str, Any]:
        """What makes it this sweep and no other; how many samples are drawn and on which machines may change."""
        record = self._to_dict()
        return {key: record[key] for key in ("recipe", "config", "space", "shards", "scheduler", "search")}

    def _to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "recipe": self.recipe,
            "config": {key: list(v) if isinstance(v, tuple) else v for key, v in flatten(self.config).items()},
            "space": json.loads(json.dumps(asdict(self.space))),
            "shards": self.places.shards,
            "scheduler": self.scheduler,
            "search": self.search,
            "num_samples": self.num_samples,
            "options": asdict(self.options),
            "machines": asdict(self.resources),  # as earlier versions call them
            "started_ms": self.started_ms,
            "digest": self.digest,
            "store": self.store,
        }


def record_path(runs: Path, name: str) -> Path:
    """Where a sweep's record is. Raises UserError for a name that is none."""
    if not name or Path(name).name != name or name.startswith("."):
        raise UserError(f"{name!r} is no name for a sweep: it becomes a file's name")
    return runs / "sweeps" / f"{name}.json"


def load_sweep(runs: Path, name: str) -> Sweep:
    """The sweep of this name. Raises UserError if there is none."""
    path = record_path(runs.absolute(), name)
    if not path.is_file():
        known = sorted(each.stem for each in path.parent.glob("*.json"))
        raise UserError(f"there is no sweep {name!r} in {runs}; known: {', '.join(known) or 'none'}")
    try:
        record = json.loads(path.read_text())
        config, space = from_flat(record["config"]), record["space"]
        sample = {key: (name, arguments) for key, (name, arguments) in space["sample"].items()}
        return Sweep(
            name=name,
            config=config,
            recipe=record["recipe"],
            space=Space(space["grid"], sample).typed(config),
            places=Places.of(record["shards"], runs),
            options=Options(**record["options"]),
            resources=Resources(**record["machines"]),
            num_samples=record["num_samples"],
            scheduler=record["scheduler"],
            search=record["search"],
            started_ms=record["started_ms"],
            digest=record["digest"],
            store=record["store"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no sweep's record: {error!r}") from None


def continued(sweep: Sweep, digest: str) -> Sweep:
    """The sweep on the shards of this digest: as it is, or the one of this name that was begun before, on the machines
    that are given now.

    Raises UserError if that was another sweep, had other shards, or has its runs in another MLflow store.
    """
    store = shown_store(sweep.places)
    if not sweep.path.exists():
        return dataclasses.replace(sweep, digest=digest, store=store)
    before = load_sweep(sweep.places.runs, sweep.name)
    was, now = before.definition(), sweep.definition()
    changed = [key for key in now if now[key] != was[key]]
    if changed:
        raise UserError(
            f"there is another sweep {sweep.name!r} (its {', '.join(changed)} differ): choose another --name, or go on "
            f"with it by --resume {sweep.name}"
        )
    if before.digest != digest:
        raise UserError(
            f"the shards at {without_secrets(sweep.places.shards)} have changed since sweep {sweep.name!r} began "
            f"(digest {before.digest[:12]} then, {digest[:12]} now): its trials cannot be compared with new ones; "
            "choose another --name"
        )
    if before.store != store:
        raise UserError(
            f"sweep {sweep.name!r} has its runs in {before.store}, and MLflow is at {store} now: set "
            f"MLFLOW_TRACKING_URI to where they are (if that has moved, change `store` in {sweep.path})"
        )
    return dataclasses.replace(sweep, started_ms=before.started_ms, digest=digest, store=store)


def shown_store(places: Places) -> str:
    """The address of the MLflow store without what may be secret in it, and relative to the runs if it is a file
    there, for those may move."""
    return without_secrets(places.tracking_uri.replace(f"{places.runs}/", ""))


def default_name(sweep: Sweep) -> str:
    """The recipe and what is tried, so that the same command goes on with the same sweep."""
    text = json.dumps(sweep.definition(), sort_keys=True)
    return f"{sweep.recipe}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def show_point(point: Point) -> str:
    """A point in words: `gamma=0.7 lr=0.0003`, with whole keys where two end alike."""
    shown = {key: f"{value:.4g}" if isinstance(value, float) else show_value(value) for key, value in point.items()}
    ends = Counter(key.split(".")[-1] for key in point)
    names = {key: key if ends[key.split(".")[-1]] > 1 else key.split(".")[-1] for key in point}
    return " ".join(f"{names[key]}={value}" for key, value in shown.items()) or "single"
