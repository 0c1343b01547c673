"""Who uses a stage on disk: trials and sweeps that say so in MLflow, and sweeps whose file the stage fits.

The files count because the runs of one folder may lie in several MLflow stores.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adafocus import checkpoint
from adafocus.config.overrides import flatten, from_flat
from adafocus.methods.identity import stage_folders, stage_reads
from pipelines.paths import Places
from pipelines.sweeps.sweep import Sweep
from pipelines.sweeps.sweep_file import load_sweep, sweep_names
from pipelines.tracking.client import Tracker
from pipelines.tracking.records import TrialRecord
from preprocessing.schema import UserError
from preprocessing.shards.index import read_metadata


class StageUsers:
    """The users of all stages below a folder of runs, as MLflow and the sweeps' files have them now."""

    def __init__(self, places: Places) -> None:
        self._tracked = _tracked_users(places)
        self._sweeps = [load_sweep(places.runs, name) for name in sweep_names(places.runs)]
        self._digests = {shards: _digest(shards) for shards in {sweep.places.shards for sweep in self._sweeps}}

    def of(self, folder: Path) -> tuple[str, ...]:
        """Names of the trials and sweeps that use a stage, or of an unfinished one, that would begin it anew if it were
        removed."""
        result = folder.with_suffix("")
        if folder.suffix == ".partial" and (result / checkpoint.META).exists():
            return ()  # its result is there: whoever wrote it was killed before it cleaned up
        return tuple(sorted(self._tracked.get(result.name, set()) | self._fitting_sweeps(folder)))

    def is_tracked(self, folder: Path) -> bool:
        """Does MLflow name a user of this stage?"""
        return folder.name in self._tracked

    def _fitting_sweeps(self, folder: Path) -> set[str]:
        """Names of the sweeps that could have trained this finished stage, or would find it when they go on."""
        if not (folder / checkpoint.META).exists():
            return set()
        meta, stage = checkpoint.read_meta(folder), folder.name.split("-")[0]
        flat = flatten(from_flat(meta.config))
        same_data = [each for each in self._sweeps if self._digests[each.places.shards] in ("", meta.digest)]
        return {f"sweep {each.name}" for each in same_data if _tries(each, stage, flat)}


def _tracked_users(places: Places) -> dict[str, set[str]]:
    """Name of a stage's folder -> names of the runs in MLflow that use it."""
    users: dict[str, set[str]] = defaultdict(set)
    tracker = Tracker.at(places)
    for trial in tracker.trials():
        for folder in _stages_of(trial, places):
            users[folder].add(trial.full_name)
    for sweep in tracker.sweeps():
        for folder in sweep.stages:
            users[folder].add(f"sweep {sweep.sweep}")
    return users


def _stages_of(trial: TrialRecord, places: Places) -> Sequence[str]:
    """Folders of a trial's stages: as its run names them, else as its checkpoint's meta.json does."""
    if trial.stages:
        return trial.stages
    folder = places.runs / (trial.checkpoint or "none")
    if not (folder / checkpoint.META).exists():
        return []
    meta = checkpoint.read_meta(folder)
    return meta.stages or [each.name for each in stage_folders(from_flat(meta.config), places.runs, meta.digest)]


def _digest(shards: str) -> str:
    """The digest of the data set's index; empty if the shards are gone."""
    try:
        return read_metadata(shards).digest
    except UserError:
        return ""


def _tries(sweep: Sweep, stage: str, flat: dict[str, Any]) -> bool:
    """Is a stage with this configuration one that the sweep tries? A setting that it draws may have any value."""
    own, space = flatten(sweep.config), sweep.space
    for name in stage_reads(sweep.method, stage):
        if name not in space.sample and flat[name] not in space.grid.get(name, [own[name]]):
            return False
    return True
