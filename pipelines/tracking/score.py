"""The score of a trial: the data set's metric on the evaluation split, in percent, of its last evaluated stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adafocus.checkpoint import Meta


SCORE = "score"
"""Name of the logged metric that holds the newest score, whatever the stage and the method."""


def score_name(stage: str, metric: str) -> str:
    """Name of the logged metric that is a stage's score: after pretraining the focuser's own."""
    return f"{stage}/val_{'focuser_' if stage == 'pretrain' else ''}{metric}"


def reached_stages(metrics: Mapping[str, float]) -> list[str]:
    """The stages of which anything was logged, in order."""
    from adafocus.methods import stage_names  # not above: who only opens the store need not import torch

    return [stage for stage in stage_names() if any(name.startswith(f"{stage}/") for name in metrics)]


def last_score(metrics: Mapping[str, float], metric: str) -> float | None:
    """The score among the newest metrics of a trial; None if no stage was evaluated, as where all are imported."""
    names = [score_name(stage, metric) for stage in reached_stages(metrics)]
    scores = [metrics[name] for name in names if name in metrics]
    return scores[-1] if scores else None


def score_of_stages(stages: Iterable[Meta]) -> float | None:
    """The score of a trial out of the records of its stages, in their order."""
    metrics: dict[str, float] = {}
    metric = ""
    for meta in stages:
        metric = meta.info["metric"]
        for row in meta.history:
            metrics |= row["metrics"]
    return last_score(metrics, metric)
