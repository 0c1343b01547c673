"""Thresholds of early exit: how sure a model is at each exit goes in, the certainty at which a clip may stop comes out.

What share of the clips should stop where is chosen first, from a budget. The thresholds are then quantiles of what was
seen on clips that nobody is judged by, exit by exit among the clips that are still there, as AdaFocusV2 does.

Shapes: N clips, X exits, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Criterion = Literal["confidence", "entropy"]
"""How sure a prediction is: its largest logit, or the negative entropy of its probabilities."""

NOBODY, EVERYBODY = 1e8, -1e8
"""Thresholds that no clip reaches, and every clip."""
ROUNDING = 1e-9
"""A budget so near to an end of the exits' costs, as a share of their range, is that end."""


def certainty(logits: Tensor, criterion: Criterion) -> Tensor:
    """How sure predictions are, float32 (...) of logits (..., K): the more, the higher."""
    if criterion == "confidence":
        return logits.float().amax(-1)
    log_prob = logits.float().log_softmax(-1)
    return (log_prob.exp() * log_prob).sum(-1)


def exit_shares(ratio: float, exits: int) -> Tensor:
    """Shares of the clips that stop at each exit, float64 (X,): each is `ratio` times the one before."""
    return torch.softmax(torch.arange(exits, dtype=torch.float64) * math.log(ratio), 0)


def shares_of_budget(budget: float, costs: Sequence[float]) -> Tensor:
    """The shares of this form whose mean cost is `budget`; `costs` of the exits rise.

    With no more than the first exit's cost all clips stop there, with the last one's or more none stops early.
    """
    cost_X = torch.tensor(costs, dtype=torch.float64)
    place = (budget - costs[0]) / (costs[-1] - costs[0]) if len(costs) > 1 else 0.0
    if not ROUNDING < place < 1 - ROUNDING:
        return (torch.arange(len(costs)) == (0 if place <= ROUNDING else len(costs) - 1)).double()
    low, high = -60.0, 60.0  # of the ratio's logarithm: the mean cost rises with it
    for _ in range(100):
        middle = (low + high) / 2
        below = float(exit_shares(math.exp(middle), len(costs)) @ cost_X) < budget
        low, high = (middle, high) if below else (low, middle)
    return exit_shares(math.exp((low + high) / 2), len(costs))


def exit_thresholds(certainty_NX: Tensor, shares_X: Tensor) -> list[float]:
    """A threshold for every exit. At each as many of the clips that are left stop as their share of all N, rounded
    down; NOBODY where that is none. All that are left stop at the last."""
    count, exits = certainty_NX.shape
    left_N = torch.ones(count, dtype=torch.bool)
    thresholds = []
    for number in range(exits - 1):
        leaving = math.floor(count * float(shares_X[number]))
        values = certainty_NX[left_N, number].sort(descending=True).values
        thresholds.append(float(values[leaving - 1]) if 0 < leaving <= len(values) else NOBODY)
        left_N &= certainty_NX[:, number] < thresholds[-1]
    return [*thresholds, EVERYBODY]


def choose_exits(certainty_NX: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Where each clip stops: the first exit at which it is as sure as asked for, int64 (N,), from 0."""
    reached_NX = certainty_NX >= torch.tensor(thresholds, dtype=certainty_NX.dtype)
    return reached_NX.int().argmax(1)  # of equals the first
