"""One stage from start to finish, by one process (or group of workers) at a time.

A finished stage is a folder `<stage>-<key>` whose meta.json appears last, by rename; whoever needs it finds it by its
key.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from adafocus import checkpoint, distributed
from adafocus.config.schema import Config
from adafocus.methods import method_of
from adafocus.methods.identity import BOXES, reads_boxes, stage_folder
from adafocus.training.reports import EpochReport, Options, Report, Watch
from adafocus.training.stage_lock import StageLock, holding
from adafocus.training.trainer import StageTrainer
from preprocessing.addresses import without_secrets
from preprocessing.schema import UserError
from preprocessing.shards.index import has_boxes, read_metadata
from preprocessing.shards.storage import Store

log = logging.getLogger(__name__)


def run_stage(
    name: str,
    config: Config,
    *,
    shards: str,
    runs: Path,
    options: Options,
    report: Report,
    watch: Watch | None = None,
) -> Path:
    """Train one stage, or find it finished. Returns the folder with its weights and meta.json.

    The stages before it must be finished. Raises UserError if they are not, NonFiniteLossError if training diverges,
    StageLockLostError if this process slept for so long that another one took the stage over.
    """
    version = read_metadata(shards).version
    folder = stage_folder(name, config, runs, version)
    if not _finished(folder):
        with holding(StageLock(runs, folder.name)) as lock:
            if not _finished(folder):  # else whoever held the lock before has finished it

                def checked(row: EpochReport) -> None:
                    report(row)
                    lock.check()

                StageTrainer(name, config, shards, runs, folder, version, options, checked, watch).train()
                return folder
    meta = distributed.ask_first(lambda: checkpoint.read_meta(folder))
    files = ", ".join(record["name"] for record in meta.imported)
    log.info("%s: %s", folder.name, f"imported from {files}" if files else "found finished")
    history = meta.history
    for row in history:
        report(EpochReport(**row))
    return folder


def needed_stages(stages: Sequence[str], config: Config, *, shards: str, runs: Path) -> tuple[str, ...]:
    """Of `stages`, in order, those that are finished or have to be trained: none that only leads to a finished one.

    So training goes on from an imported checkpoint, whose earlier stages were trained elsewhere. Raises UserError if
    one of them learns from boxes of objects and the data set has none.
    """
    version = read_metadata(shards).version
    needed: list[str] = []
    reached = False
    for name in reversed(stages):
        finished = _finished(stage_folder(name, config, runs, version))
        if finished or not reached:
            needed.insert(0, name)
            if not finished:
                _check_boxes(name, config, shards)
        reached |= finished
    return tuple(needed)


def epochs_left(stages: Sequence[str], config: Config, *, shards: str, runs: Path) -> dict[str, int]:
    """Epochs of each of these stages that is not finished."""
    version, method = read_metadata(shards).version, method_of(config)
    return {
        name: method.settings(config, name).epochs
        for name in stages
        if not _finished(stage_folder(name, config, runs, version))
    }


def _check_boxes(name: str, config: Config, shards: str) -> None:
    """Raises UserError if this stage learns from boxes of objects and there are none."""
    before = method_of(config).before(name)
    reads = reads_boxes(config, name) and not (before and reads_boxes(config, before))
    if reads and not has_boxes(Store(shards)):
        raise UserError(
            f"{', '.join(BOXES)} needs boxes of the objects, and no clip of {without_secrets(shards)} has one: give "
            "the data set a boxes.csv and preprocess it again, or set it to 0"
        )


def _finished(folder: Path) -> bool:
    """As rank 0 sees it, and nobody else asks: a machine that looks too early may remember that there is nothing."""
    return distributed.ask_first((folder / checkpoint.META).exists)
