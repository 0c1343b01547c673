"""What sweeps and trials have left on disk, who uses it, and what can go.

Goes in: the folder of runs and MLflow's runs; comes out: one `Stored` for each stage, and for what Ray Tune keeps of
each sweep while it runs. A stage is used by the trials whose MLflow run names it, by the sweep for which it was trained
before its trials, and by every sweep whose record (sweeps/<name>.json) it fits: the runs of one folder may lie in
several stores.
"""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adafocus import checkpoint
from adafocus.config.overrides import flatten, from_flat
from adafocus.methods import method_of, stage_names
from adafocus.methods.identity import stage_folders, stage_reads
from adafocus.training.stage_lock import LEASE_S, StageLock
from pipelines.paths import Places
from pipelines.sweeps.sweep import Sweep, load_sweep
from pipelines.tracking.client import Tracker
from pipelines.tracking.records import TrialRecord
from preprocessing.schema import UserError
from preprocessing.shards.index import read_metadata

TUNE = "tune"
"""Where Ray Tune and Ray Train keep files of each sweep (pipelines/tune.py, trial.py)."""
FOLDER = re.compile(rf"({'|'.join(stage_names())})-[0-9a-f]{{12}}(\.partial)?")


@dataclass(frozen=True, slots=True)
class Stored:
    """A stage's folder, finished or the state of one that is not; or Ray Tune's of a sweep."""

    folder: Path
    num_bytes: int
    users: tuple[str, ...]
    """Trials and sweeps, by name; of an unfinished stage those that would begin it anew if it went."""
    holder: str
    """The process that trains it now, empty if none does."""

    @property
    def name(self) -> str:
        """Of the folder, below the folder of runs."""
        return f"{TUNE}/{self.folder.name}" if self.of_tune else self.folder.name

    @property
    def lock_name(self) -> str:
        """Name of the lock that whoever works in it holds."""
        return f"sweep-{self.folder.name}" if self.of_tune else self.folder.name.removesuffix(".partial")

    @property
    def of_tune(self) -> bool:
        """Is it Ray Tune's, which nothing reads after the sweep?"""
        return self.folder.parent.name == TUNE

    @property
    def finished(self) -> bool:
        """Is it a result?"""
        return not self.of_tune and self.folder.suffix != ".partial"

    @property
    def can_go(self) -> bool:
        """An unfinished stage that nobody trains, a finished one that nobody uses, Ray's of an ended sweep."""
        return not self.holder and (not self.finished or not self.users)

    @property
    def status(self) -> str:
        """In words."""
        if self.of_tune:
            return (
                f"Ray Tune's files, in use by {self.holder}"
                if self.holder
                else "Ray Tune's files of a sweep that ended"
            )
        if self.holder:
            return f"being trained by {self.holder}"
        if not self.finished:
            return "unfinished, nobody trains it"
        return "finished" if self.users else "finished, nobody uses it"


def list_stored(places: Places) -> list[Stored]:
    """Every stage on disk, in the order of the stages, and what Ray Tune has left."""
    tracked, fits = _tracked(places), _Records(places)
    folders = [path for path in places.runs.glob("*-*") if path.is_dir() and FOLDER.fullmatch(path.name)]
    folders.sort(key=lambda path: (stage_names().index(path.name.split("-")[0]), path.name))
    found = [Stored(folder, _num_bytes(folder), _users(folder, tracked, fits), "") for folder in folders]
    of_tune = sorted(path for path in (places.runs / TUNE).glob("*") if path.is_dir())
    found += [Stored(folder, _num_bytes(folder), (), "") for folder in of_tune]
    return [replace(each, holder=StageLock(places.runs, each.lock_name).holder) for each in found]


def find_stored(places: Places, name: str) -> Stored:
    """One stage by its folder's name, or the beginning of it. Raises UserError if there is not exactly one."""
    matches = [each for each in list_stored(places) if each.name.startswith(name)]
    exact = [each for each in matches if each.name == name]
    if len(exact or matches) != 1:
        known = ", ".join(each.name for each in matches) or "none"
        raise UserError(f"{name!r} has to be the beginning of one stage in {places.runs}; fitting: {known}")
    return (exact or matches)[0]


def prune(places: Places, wanted: Sequence[Stored]) -> list[Stored]:
    """Remove of `wanted` what can go now: what came into use since it was listed stays. Returns what was removed.

    Raises UserError if MLflow knows none of the stages on disk: then it is hardly the store that they belong to.
    """
    now = {each.folder: each for each in list_stored(places)}
    finished, tracked = [each for each in now.values() if each.finished], _tracked(places)
    if finished and not any(each.folder.name in tracked for each in finished):
        raise UserError(
            f"{places.store} knows none of the stages in {places.runs}: point MLFLOW_TRACKING_URI at the store "
            "that they belong to"
        )
    removed = []
    for stored in (now[each.folder] for each in wanted if each.folder in now):
        lock = StageLock(places.runs, stored.lock_name)
        if not stored.can_go or not lock.acquire(LEASE_S + 5):
            continue
        try:
            # Again, for waiting for the lock may have taken long; now nobody else can finish or begin it.
            if not stored.folder.exists() or (
                stored.finished and _users(stored.folder, _tracked(places), _Records(places))
            ):
                continue
            # meta.json first: what is left of a folder when this is killed is no result.
            (stored.folder / checkpoint.META).unlink(missing_ok=True)
            shutil.rmtree(stored.folder)
            removed.append(stored)
        finally:
            lock.release()
    return removed


def _num_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _users(folder: Path, tracked: dict[str, set[str]], records: _Records) -> tuple[str, ...]:
    """Who needs a stage."""
    result = folder.with_suffix("")
    if folder.suffix == ".partial" and (result / checkpoint.META).exists():
        return ()  # its result is there: whoever wrote it was killed before it cleaned up
    return tuple(sorted(tracked.get(result.name, set()) | records.users(folder)))


def _tracked(places: Places) -> dict[str, set[str]]:
    """Folder name -> names of the runs in MLflow that need it."""
    users: dict[str, set[str]] = defaultdict(set)
    tracker = Tracker.at(places)
    for trial in tracker.trials():
        for folder in _stages_of(trial, places):
            users[folder].add(trial.full_name)
    for sweep in tracker.sweeps():
        for folder in sweep.stages:
            users[folder].add(f"sweep {sweep.sweep}")
    return users


class _Records:
    """The records of all sweeps beside the stages."""

    def __init__(self, places: Places) -> None:
        names = sorted(path.stem for path in (places.runs / "sweeps").glob("*.json"))
        self.sweeps = [load_sweep(places.runs, name) for name in names]
        self.digests = {shards: _digest(shards) for shards in {sweep.places.shards for sweep in self.sweeps}}

    def users(self, folder: Path) -> set[str]:
        """Names of the sweeps that could have made this finished stage, or would find it when they go on."""
        if not (folder / checkpoint.META).exists():
            return set()
        meta, stage = checkpoint.read_meta(folder), folder.name.split("-")[0]
        flat = flatten(from_flat(meta.config))
        fitting = [each for each in self.sweeps if self.digests[each.places.shards] in ("", meta.digest)]
        return {f"sweep {each.name}" for each in fitting if _tries(each, stage, flat)}


def _digest(shards: str) -> str:
    """Of the index; empty where the shards are not there any more."""
    try:
        return read_metadata(shards).digest
    except UserError:
        return ""


def _tries(sweep: Sweep, stage: str, flat: dict[str, Any]) -> bool:
    """Is a stage with this configuration one that the sweep tries? What it draws may have any value."""
    own, space = flatten(sweep.config), sweep.space
    for name in stage_reads(method_of(sweep.config), stage):
        if name not in space.sample and flat[name] not in space.grid.get(name, [own[name]]):
            return False
    return True


def _stages_of(trial: TrialRecord, places: Places) -> Sequence[str]:
    """Folders of a trial's stages: as its run says, else as its checkpoint's own record does."""
    if trial.stages:
        return trial.stages
    folder = places.runs / (trial.checkpoint or "none")
    if not (folder / checkpoint.META).exists():
        return []
    meta = checkpoint.read_meta(folder)
    return meta.stages or [each.name for each in stage_folders(from_flat(meta.config), places.runs, meta.digest)]
