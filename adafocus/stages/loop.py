"""One stage from start to finish, by one process (or group of workers) at a time.

A finished stage is a folder `<stage>-<key>` whose meta.json appears last, by rename; whoever needs it finds it by its
key.
"""

from __future__ import annotations

import logging
from pathlib import Path

from adafocus import checkpoint, distributed
from adafocus.config import Config
from adafocus.loader import ClipLoader
from adafocus.stages.claim import Claim, holding
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

    The stages before it must be finished. Raises UserError if they are not, NonFiniteLossError if training diverges,
    ClaimLostError if this process slept for so long that another one took the stage over.
    """
    digest = ClipLoader.digest_of(shards)
    folder = stage_folder(name, config, runs, digest)
    if not _finished(folder):
        with holding(Claim(runs, folder.name)) as claim:
            if not _finished(folder):  # else whoever held the claim before has finished it

                def checked(row: EpochReport) -> None:
                    report(row)
                    claim.check()

                StageTrainer(name, config, shards, runs, folder, digest, options, checked).train()
                return folder
    log.info("%s: found finished", folder.name)
    history = distributed.agree(checkpoint.read_meta(folder).history if distributed.rank() == 0 else [])
    for row in history:
        report(EpochReport(**row))
    return folder


def _finished(folder: Path) -> bool:
    """As rank 0 sees it, and nobody else asks: a machine that looks too early may remember that there is nothing."""
    return bool(distributed.agree(distributed.rank() == 0 and (folder / checkpoint.META).exists()))
