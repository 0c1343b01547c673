"""The file of a sweep, beside its results: what the sweep is, so that it can go on by its name alone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adafocus.config.overrides import flatten, from_flat
from adafocus.training.reports import Options
from pipelines.paths import Places
from pipelines.ray_runtime.resources import Resources
from pipelines.sweeps.search.space import Space
from pipelines.sweeps.sweep import Sweep, check_name
from preprocessing.addresses import without_secrets
from preprocessing.files import write_file
from preprocessing.schema import UserError

FOLDER = "sweeps"
"""Folder of the files, below the folder of runs."""


def sweep_file(runs: Path, name: str) -> Path:
    """Path of a sweep's file. Raises UserError for a name that cannot be a file's name."""
    check_name(name)
    return runs / FOLDER / f"{name}.json"


def save_sweep(sweep: Sweep) -> Path:
    """Write the sweep's file; returns its path."""
    path = sweep_file(sweep.places.runs, sweep.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, json.dumps(_to_dict(sweep), indent=1).encode())
    return path


def load_sweep(runs: Path, name: str) -> Sweep:
    """The sweep of this name. Raises UserError if there is none."""
    path = sweep_file(runs.absolute(), name)
    if not path.is_file():
        raise UserError(f"there is no sweep {name!r} in {runs}; known: {', '.join(sweep_names(runs)) or 'none'}")
    try:
        record = json.loads(path.read_text("utf-8"))
        config, space = from_flat(record["config"]), record["space"]
        sample = {key: (kind, arguments) for key, (kind, arguments) in space["sample"].items()}
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
            version=record["digest"],
            store=record["store"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no sweep's record: {error!r}") from None


def sweep_names(runs: Path) -> list[str]:
    """Names of all sweeps that have a file."""
    return sorted(path.stem for path in (runs / FOLDER).glob("*.json"))


def continue_sweep(sweep: Sweep, version: str) -> Sweep:
    """The sweep on the shards of this version, or the earlier one of this name, which goes on with the resources that
    are given now.

    Raises UserError if the earlier one was another sweep, had other shards, or has its runs in another MLflow store.
    """
    path, store = sweep_file(sweep.places.runs, sweep.name), describe_store(sweep.places)
    if not path.exists():
        return dataclasses.replace(sweep, version=version, store=store)
    earlier = load_sweep(sweep.places.runs, sweep.name)
    before, now = definition(earlier), definition(sweep)
    changed = [key for key in now if now[key] != before[key]]
    if changed:
        raise UserError(
            f"there is another sweep {sweep.name!r} (its {', '.join(changed)} differ): choose another --name, or go on "
            f"with it by --resume {sweep.name}"
        )
    if version not in (earlier.version, f"{earlier.version}+{version.partition('+')[2]}"):  # boxes were not named once
        raise UserError(
            f"the shards at {without_secrets(sweep.places.shards)} have changed since sweep {sweep.name!r} began "
            f"({_version(earlier.version)} then, {_version(version)} now): its trials cannot be compared with new "
            "ones; choose another --name"
        )
    if earlier.store != store:
        raise UserError(
            f"sweep {sweep.name!r} has its runs in {earlier.store}, and MLflow is at {store} now: set "
            f"MLFLOW_TRACKING_URI to where they are (if that has moved, change `store` in {path})"
        )
    return dataclasses.replace(sweep, started_ms=earlier.started_ms, version=version, store=store)


def _version(version: str) -> str:
    """The same in words."""
    digest, _, boxes = version.partition("+")
    return f"digest {digest[:12]}, boxes {boxes[:12]}" if boxes else f"digest {digest[:12]}"


def definition(sweep: Sweep) -> dict[str, Any]:
    """What makes it this sweep and no other; the number of samples and the resources may change."""
    record = _to_dict(sweep)
    return {key: record[key] for key in ("recipe", "config", "space", "shards", "scheduler", "search")}


def default_name(sweep: Sweep) -> str:
    """A name that follows from recipe and space, so that the same command goes on with the same sweep."""
    text = json.dumps(definition(sweep), sort_keys=True)
    return f"{sweep.recipe}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def describe_store(places: Places) -> str:
    """The address of the MLflow store without passwords, and relative to the runs if it is a file there, for those may
    move."""
    return without_secrets(places.tracking_uri.replace(f"{places.runs}/", ""))


def _to_dict(sweep: Sweep) -> dict[str, Any]:
    return {
        "name": sweep.name,
        "recipe": sweep.recipe,
        "config": {key: list(v) if isinstance(v, tuple) else v for key, v in flatten(sweep.config).items()},
        "space": json.loads(json.dumps(asdict(sweep.space))),
        "shards": sweep.places.shards,
        "scheduler": sweep.scheduler,
        "search": sweep.search,
        "num_samples": sweep.num_samples,
        "options": asdict(sweep.options),
        "machines": asdict(sweep.resources),  # as earlier versions call them
        "started_ms": sweep.started_ms,
        "digest": sweep.version,  # as earlier versions call it
        "store": sweep.store,
    }
