"""Our model as the authors' code writes it after a stage: a `.pth.tar`, key for key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adafocus.interop.reference_checkpoints import FIRST
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
from adafocus.interop.v2_checkpoints import export_v2_checkpoint
from adafocus.models.adafocus import AdaFocus
from preprocessing.files import atomic_write

State = dict[str, Tensor]


def export_checkpoint(
    model: AdaFocus,
    path: Path,
    *,
    stage: str = "finetune",
    info: Mapping[str, float] | None = None,
    info_of_parts: Mapping[str, Mapping[str, float]] | None = None,
    parts: Sequence[str] | None = None,
) -> list[Path]:
    """Write `model` as the reference would after `stage`, with what has been trained until then.

    After warmup there is no policy yet. After pretrain there are only the networks (`parts`: one of them). Those with
    temporal shift are files of the Temporal Shift Module, one each: two files are then named after `path` and their
    part, and `info_of_parts` is what each tells of its epoch and accuracy. Returns the files. Raises UserError for
    networks that the reference does not have.
    """
    if model.config.method != FIRST:
        return export_v2_checkpoint(model, path, info)
    check_networks(model.config)
    has = parts_of(model.config, stage)
    held = tuple(part for part in has if part in (parts or has))
    shifted = layout_of(model.config) == "shifted"

    def record(*names: str, part: str = "") -> dict[str, float]:
        known = {**(info or {}), **(info_of_parts or {}).get(part, {})}
        return {"epoch": int(known.get("epoch", 0)), **{name: known.get(name, 0.0) for name in names}}

    if shifted and stage == "pretrain":
        files = {part: path.with_name(_with_part(path.name, part)) if len(held) > 1 else path for part in held}
        for part, file in files.items():
            names = renamed(model.get_submodule(part), PRETRAINED[part])
            arch = getattr(model.config.model, part).replace("_", "")
            state = {"arch": arch, "state_dict": _table(model, part, names)}
            _write(file, {**state, **record("best_prec1", part=part)})
        return list(files.values())
    tables = {THEIR_PART[part]: _table(model, part, theirs(model, part)) for part in held}
    if not shifted and "policy" in tables:
        tables["focuser"] |= {
            f"{copy}{name}": value for copy in POLICY_COPIES for name, value in tables["policy"].items()
        }
    whole = {
        f"{prefix}.{name}": value
        for part, prefix in (("glancer", "glancer"), ("focuser", "focuser"), ("fc", "classifier"))
        for name, value in tables.get(part, {}).items()
    }
    # What we have no counterpart of: the program for long videos always writes these, the other does not.
    empty = {} if shifted else {"policy": None, "scaler": None, "optimizer": None}
    _write(path, {"model_state_dict": whole, **empty, **tables, **record("acc", "best_acc")})
    return [path]


def _table(model: AdaFocus, part: str, names: Mapping[str, str]) -> State:
    state = model.get_submodule(part).state_dict()
    return {their: state[ours].detach().cpu().contiguous() for their, ours in names.items()}


def _with_part(name: str, part: str) -> str:
    """`x.pth.tar` -> `x_glancer.pth.tar`."""
    stem, dot, ending = name.partition(".")
    return f"{stem}_{part}{dot}{ending}"


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        torch.save(dict(content), partial)
