"""One stage from start to finish, by one process (or group of workers) at a time.

A finished stage is a folder `<stage>-<key>` whose meta.json appears last, by rename; whoever needs it finds it by its
key.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from adafocus import checkpoint, distributed
from adafocus.config import Config
from adafocus.loader import ClipLoader
from adafocus.stages.trainer import EpochReport, Options, Report, StageTrainer, stage_folder

log = logging.getLogger(__name__)


def run_stage(
    name: str,
    config: Config,
    *,
    shards: str,
    runs: Path,
    options: Options,
    report: Report,
) -> Path:
    """Train one stage, or find it finished. Returns the folder with its weights and meta.json.

    The stages before it must be finished. Raises UserError if they are not, NonFiniteLossError if training diverges.
    """
    with _claim(name, config, shards, runs) as (folder, digest):
        if (folder / checkpoint.META).exists():
            log.info("%s: found finished", folder.name)
            if distributed.rank() == 0:
                for row in checkpoint.read_meta(folder).history:
                    report(EpochReport(**row))
            return folder
        trainer = StageTrainer(name, config, shards, runs, folder, digest, options, report)
        trainer.train()
        return folder


@contextlib.contextmanager
def _claim(name: str, config: Config, shards: str, runs: Path) -> Iterator[tuple[Path, str]]:
    """Hold the stage's lock: of several processes that need it, one trains and the others wait, then find it done."""
    digest = ClipLoader.digest_of(shards)
    folder = stage_folder(name, config, runs, digest)
    if distributed.rank() == 0 and not (folder / checkpoint.META).exists():
        locks = runs / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / f"{folder.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("%s is being trained by another process: waiting for it", folder.name)
            lock.acquire()
        try:
            distributed.barrier()
            yield folder, digest
        finally:
            lock.release()
    else:
        distributed.barrier()
        yield folder, digest
    distributed.barrier()
