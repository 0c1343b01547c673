"""A checkpoint written in the layout of the authors' code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adafocus import checkpoint
from adafocus.checkpoint import Meta
from adafocus.interop import reference_export


def export_checkpoint(folder: Path, out: Path) -> tuple[Meta, list[Path]]:
    """Write the checkpoint in `folder` as `out`, a .pth.tar. Returns its record and the files: there may be two.

    Raises UserError for networks that the authors' code does not have.
    """
    model, meta = checkpoint.load_model(folder)
    written = reference_export.export_checkpoint(
        model,
        out,
        stage=meta.stage,
        info=_accuracies(meta),
        info_of_parts=_accuracies_by_part(meta),
        parts=_parts(meta),
    )
    return meta, written


def _parts(meta: Meta) -> list[str] | None:
    """The parts that imported files have filled; None for a model that was trained here, which has all of its stage."""
    return [part for record in meta.imported for part in record["parts"]] or None


def _accuracies(meta: Meta) -> dict[str, float]:
    """Epoch and accuracies of a checkpoint, by the names in the authors' files.

    Of an imported model what all its files agree on; else the stage's number of epochs, the last accuracy and the best
    one (in percent, by the data set's metric).
    """
    if meta.imported:
        return dict(set.intersection(*(set(_numbers(record).items()) for record in meta.imported)))
    scores = _curve(meta, f"{meta.stage}/val_{meta.info['metric']}")
    return {
        "epoch": meta.config[f"{meta.stage}.epochs"],
        **({"acc": scores[-1], "best_acc": max(scores)} if scores else {}),
    }


def _accuracies_by_part(meta: Meta) -> dict[str, dict[str, float]]:
    """The same of each part, where parts were trained apart."""
    if meta.imported:
        return {part: _numbers(record) for record in meta.imported for part in record["parts"]}
    curves = {part: _curve(meta, f"{meta.stage}/val_{part}_top1") for part in ("glancer", "focuser")}
    return {part: {"best_prec1": max(scores)} for part, scores in curves.items() if scores}


def _numbers(record: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in record.items() if name not in ("name", "sha256", "parts")}


def _curve(meta: Meta, name: str) -> list[float]:
    return [row["metrics"][name] for row in meta.history if name in row["metrics"]]
