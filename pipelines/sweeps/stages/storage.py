"""What sweeps and trials have left on disk, and removing what nobody uses.

That is a folder for each stage, finished or not, and what Ray Tune keeps of each sweep while it runs.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from adafocus import checkpoint
from adafocus.methods import stage_names
from adafocus.training.stage_lock import LEASE_S, StageLock
from pipelines.paths import Places
from pipelines.sweeps.stages.stage_users import StageUsers
from pipelines.sweeps.sweep import TUNE_FOLDER
from preprocessing.schema import UserError

STAGE_FOLDER = re.compile(rf"({'|'.join(stage_names())})-[0-9a-f]{{12}}(\.partial)?")


@dataclass(frozen=True, slots=True)
class StoredFolder:
    """A folder below the runs: of a finished stage, of the state of an unfinished one, or Ray Tune's of a sweep."""

    folder: Path
    num_bytes: int
    users: tuple[str, ...]
    """Trials and sweeps, by name; of an unfinished stage those that would begin it anew if it were removed."""
    holder: str
    """The process that works in it now; empty if none does."""

    @property
    def name(self) -> str:
        """Path of the folder, below the folder of runs."""
        return f"{TUNE_FOLDER}/{self.folder.name}" if self.of_tune else self.folder.name

    @property
    def lock_name(self) -> str:
        """Name of the lock that a process holds while it works in the folder."""
        return f"sweep-{self.folder.name}" if self.of_tune else self.folder.name.removesuffix(".partial")

    @property
    def of_tune(self) -> bool:
        """Is it Ray Tune's, which nothing reads after the sweep?"""
        return self.folder.parent.name == TUNE_FOLDER

    @property
    def finished(self) -> bool:
        """Is it a finished stage?"""
        return not self.of_tune and self.folder.suffix != ".partial"

    @property
    def removable(self) -> bool:
        """Is it an unfinished stage that nobody trains, a finished one that nobody uses, or Ray's of an ended sweep?"""
        return not self.holder and (not self.finished or not self.users)

    @property
    def status(self) -> str:
        """What it is and who works in it, in words."""
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


def list_folders(places: Places) -> list[StoredFolder]:
    """Every stage on disk, in the order of the stages, and what Ray Tune has left."""
    users = StageUsers(places)
    stages = [path for path in places.runs.glob("*-*") if path.is_dir() and STAGE_FOLDER.fullmatch(path.name)]
    stages.sort(key=lambda path: (stage_names().index(path.name.split("-")[0]), path.name))
    folders = [StoredFolder(folder, _num_bytes(folder), users.of(folder), "") for folder in stages]
    of_tune = sorted(path for path in (places.runs / TUNE_FOLDER).glob("*") if path.is_dir())
    folders += [StoredFolder(folder, _num_bytes(folder), (), "") for folder in of_tune]
    return [replace(each, holder=StageLock(places.runs, each.lock_name).holder) for each in folders]


def find_folder(places: Places, name: str) -> StoredFolder:
    """The folder of this name, or whose name begins with it. Raises UserError if there is not exactly one."""
    matches = [each for each in list_folders(places) if each.name.startswith(name)]
    exact = [each for each in matches if each.name == name]
    if len(exact or matches) != 1:
        known = ", ".join(each.name for each in matches) or "none"
        raise UserError(f"{name!r} has to be the beginning of one stage in {places.runs}; fitting: {known}")
    return (exact or matches)[0]


def remove_folders(places: Places, folders: Sequence[StoredFolder]) -> list[StoredFolder]:
    """Remove those of the folders that are still removable, and return them.

    Raises UserError if MLflow knows none of the stages on disk: then it is hardly the store that they belong to.
    """
    current, users = {each.folder: each for each in list_folders(places)}, StageUsers(places)
    finished = [each for each in current.values() if each.finished]
    if finished and not any(users.is_tracked(each.folder) for each in finished):
        raise UserError(
            f"{places.store} knows none of the stages in {places.runs}: point MLFLOW_TRACKING_URI at the store "
            "that they belong to"
        )
    removed = []
    for stored in (current[each.folder] for each in folders if each.folder in current):
        lock = StageLock(places.runs, stored.lock_name)
        if not stored.removable or not lock.acquire(LEASE_S + 5):
            continue
        try:
            # Again, for waiting for the lock may have taken long; now nobody else can finish or begin it.
            if not stored.folder.exists() or (stored.finished and StageUsers(places).of(stored.folder)):
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
