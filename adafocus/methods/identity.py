"""What names the result of a stage: the settings that it depends on, and the data.

Trials that differ only in settings of later stages share the result. Settings at their default stay out, so that a new
setting renames nothing.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

from adafocus.config.overrides import flatten
from adafocus.config.schema import Config
from adafocus.methods import Method, method_of
from preprocessing.schema import UserError

WEIGHTS = ("model.glancer_weights", "model.focuser_weights")
"""Settings that may name a file; it counts by its content, not by where it lies."""
BOXES = ("ppo.box_reward",)
"""Settings that, if not at their default, make a stage learn from the objects' boxes."""


def stage_reads(method: Method, stage: str) -> list[str]:
    """Names of the settings that decide the result of `stage`: its own and those of the stages before it."""
    prefixes = [prefix for each in method.through(stage) for prefix in each.reads]
    return [
        name
        for name in flatten(Config())
        if any(name == prefix or name.startswith((f"{prefix}.", f"{prefix}_")) for prefix in prefixes)
    ]


def reads_boxes(config: Config, stage: str) -> bool:
    """Does the result of `stage` depend on the objects' boxes?"""
    flat, default = flatten(config), flatten(Config())
    return any(flat[name] != default[name] for name in stage_reads(method_of(config), stage) if name in BOXES)


def stage_key(config: Config, stage: str, version: str) -> str:
    """Twelve hex digits that name the result of `stage`: equal for all trials that may share it.

    `version` is the index's; its boxes count only where they are read. Raises UserError for a file of weights that is
    not there.
    """
    digest, _, boxes = version.partition("+")
    flat, default = flatten(config), flatten(Config())
    names = stage_reads(method_of(config), stage)
    fields = {name: flat[name] for name in names if flat[name] != default[name]}
    for name in WEIGHTS:
        if name in fields and fields[name] not in ("imagenet", "none"):
            fields[name] = _content_of(name, Path(fields[name]))
    if boxes and reads_boxes(config, stage):
        fields["boxes"] = boxes
    text = json.dumps({"stage": stage, "digest": digest, **fields}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def stage_folder(stage: str, config: Config, runs: Path, version: str) -> Path:
    """Where the result of a stage is or will be."""
    return runs / f"{stage}-{stage_key(config, stage, version)}"


def stage_folders(config: Config, runs: Path, version: str) -> list[Path]:
    """The same of all stages of the configuration's method, in order."""
    return [stage_folder(stage, config, runs, version) for stage in method_of(config).stage_names]


def _content_of(name: str, path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{name} is {str(path)!r}: there is no such file")
    stat = path.stat()
    return _hash(path, stat.st_size, stat.st_mtime_ns)


@functools.cache
def _hash(path: Path, size: int, changed_ns: int) -> str:
    """Of a file's content; read again only when size or time have changed."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
