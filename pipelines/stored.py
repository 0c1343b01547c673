"""What sweeps and trials have left on disk, who uses it, and what can go.

Goes in: the folder of runs and MLflow's runs; comes out: one `Stored` for each stage. A stage is used by the trials
whose MLflow run names it, and by the sweep for which it was trained before its trials.
"""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adafocus import checkpoint
from adafocus.config import STAGES, from_flat
from adafocus.stages.claim import LEASE_S, Claim
from adafocus.stages.trainer import stage_folder
from pipelines.tracking import Kind, MlflowRun
from pipelines.train import Places
from preprocessing.schema import UserError

FOLDER = re.compile(rf"({'|'.join(STAGES)})-[0-9a-f]{{12}}(\.partial)?")


@dataclass(frozen=True, slots=True)
class Stored:
    """A stage's folder: finished, or the state of one that is not."""

    folder: Path
    num_bytes: int
    users: tuple[str, ...]
    """Trials and sweeps, by name; of an unfinished stage those that would begin it anew if it went."""
    holder: str
    """The process that trains it now, empty if none does."""

    @property
    def finished(self) -> bool:
        """Is it a result?"""
        return self.folder.suffix != ".partial"

    @property
    def can_go(self) -> bool:
        """An unfinished stage that nobody trains, or a finished one that nobody uses."""
        return not self.holder and (not self.finished or not self.users)

    @property
    def status(self) -> str:
        """In words."""
        if self.holder:
            return f"being trained by {self.holder}"
        if not self.finished:
            return "unfinished, nobody trains it"
        return "finished" if self.users else "finished, nobody uses it"


def list_stored(places: Places) -> list[Stored]:
    """Every stage on disk, in the order of the stages."""
    found = []
    users = _users(places)
    folders = [path for path in places.runs.glob("*-*") if path.is_dir() and FOLDER.fullmatch(path.name)]
    for folder in sorted(folders, key=lambda path: (STAGES.index(path.name.split("-")[0]), path.name)):
        name = folder.name.removesuffix(".partial")
        if folder.suffix == ".partial" and (folder.with_suffix("") / checkpoint.META).exists():
            users_of: tuple[str, ...] = ()  # its result is there: whoever wrote it was killed before it cleaned up
        else:
            users_of = tuple(sorted(users[name]))
        num_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        found.append(Stored(folder, num_bytes, users_of, Claim(places.runs, name).holder))
    return found


def find_stored(places: Places, name: str) -> Stored:
    """One stage by its folder's name, or the beginning of it. Raises UserError if there is not exactly one."""
    matches = [each for each in list_stored(places) if each.folder.name.startswith(name)]
    exact = [each for each in matches if each.folder.name == name]
    if len(exact or matches) != 1:
        known = ", ".join(each.folder.name for each in matches) or "none"
        raise UserError(f"{name!r} has to be the beginning of one stage in {places.runs}; fitting: {known}")
    return (exact or matches)[0]


def prune(places: Places, wanted: Sequence[Stored]) -> list[Stored]:
    """Remove what can go; what somebody has begun to train meanwhile stays. Returns what was removed.

    Raises UserError if MLflow knows none of the stages on disk: then it is hardly the store that they belong to.
    """
    finished = [each for each in list_stored(places) if each.finished]
    if finished and not any(each.users for each in finished):
        raise UserError(
            f"{places.tracking_uri} knows none of the stages in {places.runs}: point MLFLOW_TRACKING_URI at the store "
            "that they belong to"
        )
    removed = []
    for stored in wanted:
        claim = Claim(places.runs, stored.folder.name.removesuffix(".partial"))
        if not stored.can_go or not claim.acquire(LEASE_S + 5):
            continue
        try:
            # meta.json first: what is left of a folder when this is killed is no result.
            (stored.folder / checkpoint.META).unlink(missing_ok=True)
            shutil.rmtree(stored.folder)
            removed.append(stored)
        finally:
            claim.release()
    return removed


def _users(places: Places) -> dict[str, set[str]]:
    """Folder name -> names of the runs in MLflow that need it."""
    users: dict[str, set[str]] = defaultdict(set)
    tracker = places.tracker()
    kinds: tuple[Kind, ...] = ("trial", "sweep")
    for kind in kinds:
        for run in tracker.find(kind):
            sweep = run.data.tags.get("adafocus.sweep", "")
            name = f"sweep {sweep}" if kind == "sweep" else f"{sweep} {run.info.run_name}".strip()
            for folder in _needs(run, places):
                users[folder].add(name)
    return users


def _needs(run: MlflowRun, places: Places) -> list[str]:
    """Folders of a run's stages: as its tag says, else as its checkpoint's own record does."""
    if tag := run.data.tags.get("adafocus.stages"):
        return str(tag).split()
    folder = places.runs / run.data.tags.get("adafocus.checkpoint", "none")
    if not (folder / checkpoint.META).exists():
        return []
    meta = checkpoint.read_meta(folder)
    return [stage_folder(stage, from_flat(meta.config), places.runs, meta.digest).name for stage in STAGES]
