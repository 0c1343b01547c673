"""Which trials come next, by Optuna's own search but without running any trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from ray.tune.search import Searcher

from adafocus.config.overrides import override
from pipelines.paths import Places
from pipelines.recipes.cpu import demo
from pipelines.sweeps.search.searcher import DistinctSearch, PastTrial, make_searcher
from pipelines.sweeps.search.space import Point, Space
from pipelines.sweeps.search.space_text import parse_space
from pipelines.sweeps.sweep import Sweep


def sweep(tmp_path: Path, space: Space, **changes: Any) -> Sweep:
    config = override(demo(), {"ppo.epochs": 18})
    return Sweep("s", config, "demo", space, Places.of("/shards", tmp_path), **changes)


DRAWN = Space({}, {"ppo.lr": ("loguniform", [1e-5, 1e-3]), "ppo.gamma": ("choice", [0.5, 0.7, 0.9])})


def searcher(
    tmp_path: Path, known: Sequence[PastTrial] = (), begun: Sequence[Point] = (), space: Space = DRAWN
) -> DistinctSearch:
    return make_searcher(sweep(tmp_path, space, search="optuna"), known, begun, {})


def suggest(search: DistinctSearch, count: int, score: Callable[[Point], float] = lambda point: 0.0) -> list[Point]:
    points = []
    for number in range(count):
        points.append(search.suggest(f"t{number}"))
        search.on_trial_complete(f"t{number}", {"score": score(points[-1])})
    return points


def test_optuna_is_seeded(tmp_path: Path) -> None:
    first, second = (suggest(searcher(tmp_path), 4) for _ in range(2))
    assert first == second
    assert all(point.keys() == {"ppo.lr", "ppo.gamma"} and 1e-5 <= point["ppo.lr"] <= 1e-3 for point in first)
    assert all(point["ppo.gamma"] in (0.5, 0.7, 0.9) for point in first)


def test_optuna_draws_where_earlier_trials_were_good(tmp_path: Path) -> None:
    """Known from before a restart: small rates were good. Without that knowledge draws are all over the range."""
    known = [PastTrial({"ppo.lr": 10 ** (-5 + 2 * n / 29), "ppo.gamma": 0.5}, 100.0 - 3 * n) for n in range(30)]
    drawn = suggest(searcher(tmp_path, known), 12, lambda point: -point["ppo.lr"])
    blind = suggest(searcher(tmp_path), 9)
    assert sum(point["ppo.lr"] < 5e-5 for point in drawn) >= 9
    assert sum(point["ppo.lr"] < 5e-5 for point in blind) <= 6


def test_trials_that_were_begun_come_first_after_a_restart(tmp_path: Path) -> None:
    begun = [{"ppo.lr": 2e-4, "ppo.gamma": 0.9}, {"ppo.lr": 3e-4, "ppo.gamma": 0.5}]
    points = suggest(searcher(tmp_path, [PastTrial({"ppo.lr": 1e-4, "ppo.gamma": 0.7}, 5.0)], begun), 3)
    assert points[:2] == [pytest.approx(point) for point in begun] and points[2] not in begun


FEW = parse_space(demo(), [], ["ppo.reward=choice:random:previous", "ppo.epochs=randint:2:5"])
"""Six points."""


@pytest.mark.parametrize("one_is_good", [False, True])
def test_optuna_tries_nothing_twice_and_ends_when_all_was_tried(one_is_good: bool, tmp_path: Path) -> None:
    """One point is known, one was begun: four are left to draw, also where TPE would draw the best one for ever."""
    known, begun = {"ppo.reward": "random", "ppo.epochs": 2}, {"ppo.reward": "random", "ppo.epochs": 3}
    search = searcher(tmp_path, [PastTrial(known, 90.0 * one_is_good)], [begun], FEW)
    points = suggest(search, 5, lambda point: 80.0 if point == begun else 1.0)
    assert points[0] == begun
    found = {(point["ppo.reward"], point["ppo.epochs"]) for point in (known, *points)}
    assert found == {(reward, epochs) for reward in ("random", "previous") for epochs in (2, 3, 4)}
    assert not search.exhausted
    assert search.suggest("more") == Searcher.FINISHED and search.exhausted


def test_a_trial_that_runs_is_not_drawn_again(tmp_path: Path) -> None:
    search = searcher(tmp_path, space=FEW)
    points = [search.suggest(f"t{number}") for number in range(6)]
    assert len({str(point) for point in points}) == 6 and search.suggest("more") == Searcher.FINISHED


def test_pruned_trials_are_told_as_such_with_how_far_they_came(tmp_path: Path) -> None:
    """The score of another stage is no final score: this one would be the best."""
    pruned: dict[str, int] = {}
    past = PastTrial({"ppo.lr": 1e-4, "ppo.gamma": 0.7}, 99.0, pruned_epoch=6)
    search = make_searcher(sweep(tmp_path, DRAWN), [past], [], pruned)
    for name, clock, score in (("t0", 5, 98.0), ("t1", 9, 40.0)):
        search.suggest(name)
        search.on_trial_result(name, {"score": score, "training_iteration": clock})
    pruned["t0"] = 1
    search.on_trial_complete("t0", {"score": 98.0})
    search.on_trial_complete("t1", {"score": 40.0})
    told = [(trial.state, trial.intermediate_values) for trial in search._ot_study.trials]
    state = optuna.trial.TrialState
    assert told == [(state.PRUNED, {6: 99.0}), (state.PRUNED, {5: 98.0}), (state.COMPLETE, {9: 40.0})]
    assert search._ot_study.best_value == 40.0


def test_pruned_trials_repel_the_search(tmp_path: Path) -> None:
    """Large rates were pruned with high scores of another stage; small ones finished with lower scores of the last."""
    rates = [10 ** (-5 + 2 * n / 29) for n in range(30)]
    known = [
        PastTrial({"ppo.lr": rate, "ppo.gamma": 0.5}, 90.0 if rate > 1e-4 else 50.0, 6 if rate > 1e-4 else None)
        for rate in rates
    ]
    drawn = suggest(searcher(tmp_path, known), 12, lambda point: 50.0)
    assert sum(point["ppo.lr"] < 1e-4 for point in drawn) >= 9


def test_a_seed_may_be_larger_than_numpy_takes(tmp_path: Path) -> None:
    large = replace(sweep(tmp_path, DRAWN, search="optuna"), config=override(demo(), {"seed": 2**64}))
    assert suggest(make_searcher(large, (), (), {}), 1)
