"""Checkpoints of the authors' code: their `.pth.tar` in, our model out, and back, key for key.

Two layouts, one for long videos and one for networks with temporal shift. A file of stage 1 to 3 has the tables
`glancer`, `focuser`, `fc` and, once there is one, `policy`; files of stage 0 for long videos hold a network each.
Networks pretrained for Something-Something come as files of the Temporal Shift Module, with one table `state_dict`.
Names are translated one by one (`reference_names.py`) and nothing may be left over; nothing is unpickled but tensors
and plain values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adafocus.config.schema import Config
from adafocus.interop.reference_names import (
    POLICY_COPIES,
    PRETRAINED,
    THEIR_PART,
    check_networks,
    layout_of,
    parts_of,
    renamed,
    theirs,
)
from adafocus.interop.v2_checkpoints import model_from_table
from adafocus.methods import build_model, find_method
from adafocus.models.adafocus import AdaFocus
from adafocus.models.backbones import describe
from adafocus.models.classifier import MeanClassifier
from preprocessing.schema import UserError

State = dict[str, Tensor]
FIRST = "adafocus"
"""The method whose files have a table for each part."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What a file held, or several files together."""

    model: AdaFocus
    parts: tuple[str, ...]
    """Parts that were filled; the others are fresh."""
    info: dict[str, float]
    """Epoch and accuracies, as far as they are recorded (and alike in all files)."""

    @property
    def stage(self) -> str:
        """The stage of ours whose result has these parts."""
        if self.model.config.method != FIRST:
            return find_method(self.model.config.method).last  # a file holds all parts
        held = set(self.parts)
        return "finetune" if "policy" in held else "warmup" if "classifier" in held else "pretrain"


@dataclass(frozen=True, slots=True)
class Source:
    """A file to import, or only one part of it."""

    path: Path
    only: str | None = None

    @classmethod
    def parse(cls, text: str) -> Source:
        """`FILE`, or `part=FILE`. Raises UserError for an unknown part."""
        part, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            return cls(Path(text))
        if part not in THEIR_PART:
            raise UserError(f"{text!r}: {part!r} is none of {', '.join(THEIR_PART)}")
        return cls(Path(path), part)

    def record(self, imported: Imported) -> dict[str, Any]:
        """What a checkpoint's meta.json says of it."""
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
        return {"name": self.path.name, "sha256": digest, "parts": list(imported.parts), **imported.info}


def import_files(sources: Sequence[Source], config: Config) -> tuple[Imported, list[dict[str, Any]]]:
    """Files that make one model together, and the record of each.

    Raises UserError as `import_checkpoint`, and if two files hold the same part.
    """
    merged: Imported | None = None
    records: list[dict[str, Any]] = []
    for source in sources:
        one = import_checkpoint(source.path, config, into=merged.model if merged else None, only=source.only)
        for record in records:
            if twice := set(record["parts"]) & set(one.parts):
                part = sorted(twice)[0]
                raise UserError(
                    f"{record['name']} and {source.path.name} both hold the {part}: take one part of a file, as in "
                    f"{part}={source.path}"
                )
        records.append(source.record(one))
        if merged:
            parts = tuple(part for part in THEIR_PART if part in (*merged.parts, *one.parts))
            one = Imported(one.model, parts, dict(merged.info.items() & one.info.items()))
        merged = one
    if merged is None:
        raise UserError("there is no file to import")
    return merged, records


def check_stage(imported: Imported, stage: str) -> None:
    """Raises UserError unless what was imported is enough for a result of `stage`."""
    wanted = parts_of(imported.model.config, stage)
    missing = [part for part in wanted if part not in imported.parts]
    if missing:
        raise UserError(
            f"a result of {stage} has {', '.join(wanted)}, but {', '.join(missing)} came with no file: give that "
            "file too (several may follow each other)"
        )


def import_checkpoint(path: Path, config: Config, *, into: AdaFocus | None = None, only: str | None = None) -> Imported:
    """Read a released file into a model of `config`, whose number of classes follows the file.

    `into` fills a model that another file has begun: glancer and focuser are released apart. `only` takes one part of
    the file and leaves the others as they are. Raises UserError if it is no such file, does not belong to the
    configuration, or has missing, surplus or misshapen tensors (which the message lists).
    """
    if config.method != FIRST:
        return _import_v2(path, config, into=into, only=only)
    check_networks(config)
    checkpoint = read_checkpoint(path)
    tables = {part: checkpoint[name] for part, name in THEIR_PART.items() if checkpoint.get(name) is not None}
    names: dict[str, dict[str, str]] = {}
    if not tables and isinstance(checkpoint.get("state_dict"), Mapping):
        part, classes = _pretrained_part(path, config, checkpoint["state_dict"])
        model = into or build_model(config, classes, pretrained=False)
        tables = {part: checkpoint["state_dict"]}
        names = {part: renamed(model.get_submodule(part), PRETRAINED[part])}
        labels = {part: "state_dict"}
    else:
        if not tables or not all(isinstance(table, Mapping) for table in tables.values()):
            held = ", ".join(map(str, list(checkpoint)[:12]))
            raise UserError(f"{path} is no checkpoint of the reference: it has {held}")
        model = into or build_model(config, _num_classes(path, tables), pretrained=False)
        if "focuser" in tables:
            tables = _split_policy(path, tables)
        names = {part: theirs(model, part) for part in tables}
        labels = THEIR_PART
    if only and only not in tables:
        raise UserError(f"{path} holds no {only}, only {', '.join(tables)}")
    wanted = {part: table for part, table in tables.items() if only in (None, part)}
    problems: dict[str, list[str]] = {"missing": [], "surplus": [], "shapes": []}
    for part, table in wanted.items():
        _compare(labels[part], names[part], table, model.get_submodule(part), problems)
    _raise(path, problems)
    for part, table in wanted.items():
        _load(model.get_submodule(part), names[part], table)
    if layout_of(config) == "shifted" and {"focuser", "classifier"} <= wanted.keys():
        # Their focuser has lost its own last layer; its classifier, which reads the same features, stands in.
        assert isinstance(model.classifier, MeanClassifier)
        model.focuser.last[1].load_state_dict(model.classifier.last.state_dict())
    return Imported(model, tuple(wanted), _info(checkpoint))


def _import_v2(path: Path, config: Config, *, into: AdaFocus | None, only: str | None) -> Imported:
    checkpoint = read_checkpoint(path)
    table, title = checkpoint.get("state_dict"), find_method(config.method).title
    if not isinstance(table, Mapping):
        raise UserError(f"{path} is no checkpoint of {title}: it has {', '.join(map(str, list(checkpoint)[:12]))}")
    if into or only:
        raise UserError(f"{path}: a checkpoint of {title} holds the whole model: give one file")
    return Imported(model_from_table(path, table, config), find_method(config.method).parts, _info(checkpoint))


def _pretrained_part(path: Path, config: Config, table: Mapping[str, Tensor]) -> tuple[str, int]:
    """Which network a Temporal Shift Module's file holds, and of how many classes."""
    last = table.get("module.new_fc.weight")
    if last is None or layout_of(config) != "shifted":
        raise UserError(f"{path} is no checkpoint for {_regime(config)}: its state_dict has no new_fc")
    is_glancer = any(name.startswith("module.base_model.features.") for name in table)
    return "glancer" if is_glancer else "focuser", len(last)


def _regime(config: Config) -> str:
    return "networks with temporal shift" if layout_of(config) == "shifted" else "networks without temporal shift"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The table in a `.pth.tar`, with tensors on the CPU and nothing unpickled but plain data. Raises UserError."""
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):  # accuracies may be numpy's
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path} cannot be read as a checkpoint: {str(error).splitlines()[0]}") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path} holds a {type(checkpoint).__name__}, not a checkpoint's table")
    return checkpoint


def _numpy_scalars() -> list[Any]:
    scalar = np.float64(0).__reduce__()[0]
    return [
        np.dtype,
        (scalar, "numpy.core.multiarray.scalar"),  # the name in files of numpy 1
        (scalar, "numpy._core.multiarray.scalar"),
        *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)),
    ]


def _num_classes(path: Path, tables: Mapping[str, Mapping[str, Tensor]]) -> int:
    for part, name in (
        ("classifier", "fc.bias"),
        ("classifier", "bias"),
        ("glancer", "net.classifier.1.bias"),
        ("glancer", "net.classifier.bias"),
        ("focuser", "net.fc.bias"),
    ):
        if name in tables.get(part, {}):
            return len(tables[part][name])
    raise UserError(f"{path}: no last layer tells the number of classes (missing: fc.fc.bias)")


def _split_policy(path: Path, tables: dict[str, Mapping[str, Tensor]]) -> dict[str, Mapping[str, Tensor]]:
    """Take the policy's copies out of the focuser's table; the first serves where the policy's own is absent."""
    focuser = {name: value for name, value in tables["focuser"].items() if not name.startswith(POLICY_COPIES)}
    copies = [_below(tables["focuser"], prefix) for prefix in POLICY_COPIES]
    present = [copy for copy in copies if copy]
    policy = tables.get("policy", present[0] if present else None)
    wrong = [
        f"focuser.{prefix}{name}"
        for prefix, table in zip(POLICY_COPIES, copies, strict=True)
        if table and policy is not None
        for name in sorted(table.keys() ^ policy.keys())
    ]
    if wrong:
        raise UserError(f"{path}: the focuser's copies of the policy differ from it in {', '.join(wrong)}")
    return {**tables, "focuser": focuser, **({} if policy is None else {"policy": policy})}


def _below(table: Mapping[str, Tensor], prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in table.items() if name.startswith(prefix)}


def _compare(
    label: str,
    names: Mapping[str, str],
    table: Mapping[str, Tensor],
    module: torch.nn.Module,
    problems: dict[str, list[str]],
) -> None:
    own = module.state_dict()
    problems["missing"] += [f"{label}.{name}" for name in names.keys() - table.keys()]
    problems["surplus"] += [f"{label}.{name}" for name in table.keys() - names.keys()]
    for name in names.keys() & table.keys():
        found, wanted = getattr(table[name], "shape", None), own[names[name]].shape
        if found != wanted:
            problems["shapes"].append(f"{label}.{name} {found and tuple(found)} instead of {tuple(wanted)}")


def _raise(path: Path, problems: dict[str, list[str]]) -> None:
    if any(problems.values()):
        raise UserError(f"{path} does not fit the recipe: {describe(**problems)}")


def _load(module: torch.nn.Module, names: Mapping[str, str], table: Mapping[str, Tensor]) -> None:
    module.load_state_dict({ours: table[name] for name, ours in names.items()}, strict=False)


def _info(checkpoint: Mapping[str, Any]) -> dict[str, float]:
    values = {name: checkpoint.get(name) for name in ("epoch", "acc", "best_acc", "best_prec1", "best_acc1")}
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float | Tensor | np.number)}
