"""Thresholds of early exit: against numbers of the authors' code, and by the properties that define them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adafocus.evaluation.exit_thresholds import (
    EVERYBODY,
    NOBODY,
    certainty,
    choose_exits,
    exit_shares,
    exit_thresholds,
    shares_of_budget,
)
from helpers.reference import assert_near, golden, noise

RATIOS = st.floats(0.05, 20)
SIZES = st.tuples(st.integers(1, 300), st.integers(1, 20), st.integers(0, 10_000))


def distinct(size: tuple[int, int, int]) -> torch.Tensor:
    """Certainties of N clips at X exits, of which no two are equal."""
    clips, exits, seed = size
    generator = torch.Generator().manual_seed(seed)
    columns = [torch.randperm(clips, generator=generator).float() for _ in range(exits)]
    return torch.stack(columns, 1) / clips + torch.arange(exits) / 10


def counts(exits_N: torch.Tensor, exits: int) -> list[int]:
    return torch.bincount(exits_N, minlength=exits).tolist()


@pytest.mark.parametrize("case", golden("v2_exit*.json"))
def test_the_authors_thresholds_and_exits(case: dict) -> None:
    exits = case["exits"]
    scale_X11 = torch.linspace(0.5, 3, exits)[:, None, None]
    train, val = (
        noise(name, (exits, clips, classes)) * scale_X11 for name, clips, classes in (case["train"], case["val"])
    )
    for wanted in case["cases"]:
        shares_X = exit_shares(wanted["p"], exits)
        assert_near(shares_X, wanted.get("probs", shares_X.tolist()), 1e-4)
        thresholds = exit_thresholds(certainty(train.transpose(0, 1), "confidence"), shares_X)
        assert_near(torch.tensor(thresholds), wanted["thresholds"], 1e-6)
        found = choose_exits(certainty(val.transpose(0, 1), "confidence"), thresholds)
        assert found.tolist() == wanted.get("chosen_exit", found.tolist())
        assert counts(found, exits) == wanted["exit_counts"]
        total = case.get("total_cost", 27.0)
        assert float((found + 1).double().mean()) * total / exits == pytest.approx(wanted["expected_cost"], rel=1e-4)
        output = val[found, torch.arange(val.shape[1])]
        assert float(output.sum()) == pytest.approx(wanted["output_sum"], rel=1e-4)


@given(SIZES, RATIOS)
def test_as_many_clips_stop_at_an_exit_as_were_asked_for(size: tuple[int, int, int], ratio: float) -> None:
    certainty_NX, shares_X = distinct(size), exit_shares(ratio, size[1])
    found = counts(choose_exits(certainty_NX, exit_thresholds(certainty_NX, shares_X)), size[1])
    wanted = [math.floor(size[0] * share) for share in shares_X.tolist()]
    assert found[:-1] == wanted[:-1] and sum(found) == size[0]


@given(SIZES)
def test_who_stops_is_the_surest_of_those_that_are_left(size: tuple[int, int, int]) -> None:
    certainty_NX = distinct(size)
    exits_N = choose_exits(certainty_NX, exit_thresholds(certainty_NX, exit_shares(1.0, size[1])))
    for number in range(size[1] - 1):
        stops, later = (certainty_NX[mask, number] for mask in (exits_N == number, exits_N > number))
        if len(stops) and len(later):
            assert stops.min() > later.max()


@given(SIZES, st.lists(st.floats(0.5, 30), min_size=2, max_size=5).map(sorted))
def test_a_larger_budget_keeps_clips_longer(size: tuple[int, int, int], budgets: list[float]) -> None:
    clips, exits, _ = size
    costs, certainty_NX = [0.5 + number for number in range(exits)], distinct(size)
    means, sums = [], []
    for budget in budgets:
        shares_X = shares_of_budget(budget, costs)
        sums.append(shares_X.cumsum(0))
        exits_N = choose_exits(certainty_NX, exit_thresholds(certainty_NX, shares_X))
        means.append(float(torch.tensor(costs)[exits_N].mean()))
        reached = min(max(budget, costs[0]), costs[-1])
        assert float(shares_X @ torch.tensor(costs, dtype=torch.float64)) == pytest.approx(reached)
        # What rounding down leaves over stops last: of every exit less than one clip.
        assert reached - 1e-6 <= means[-1] <= reached + (costs[-1] - costs[0]) * exits / clips + 1e-6
    for before, after in pairwise(sums):
        assert (after <= before + 1e-9).all(), "no exit is reached by fewer clips"


def test_the_ends_of_the_row() -> None:
    certainty_NX = distinct((9, 3, 0))
    nobody, everybody = (exit_thresholds(certainty_NX, shares_of_budget(b, [1.0, 2.0, 3.0])) for b in (3.0, 1.0))
    assert nobody == [NOBODY, NOBODY, EVERYBODY]
    assert choose_exits(certainty_NX, everybody).tolist() == [0] * 9
    assert exit_thresholds(certainty_NX[:, :1], torch.ones(1)) == [EVERYBODY]


def test_both_criteria_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [5.0, 1.0]])
    assert certainty(logits, "confidence").tolist() == [0.0, 5.0]
    p = 1 / (1 + math.exp(-4))
    wanted = [-math.log(2), p * math.log(p) + (1 - p) * math.log(1 - p)]
    assert certainty(logits, "entropy").tolist() == pytest.approx(wanted)
