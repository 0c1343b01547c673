"""Clips that really stop: the same answers as those of all exits, at the cost that a counter sees."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.data.batches import Batch
from adafocus.evaluation import multiply_adds
from adafocus.evaluation.calibration import STEPS, Calibration, solve
from adafocus.evaluation.early_exit import ExitRule, predict_early
from adafocus.evaluation.evaluate import Predictions
from adafocus.evaluation.exit_thresholds import EVERYBODY, NOBODY, certainty, choose_exits
from adafocus.methods import build_model
from adafocus.models.adafocus import AdaFocus
from helpers.tiny import PER_CLIP, UNI
from pipelines.recipes import RECIPES
from preprocessing.schema import UserError

MODELS: dict[str, tuple[str, dict[str, object]]] = {
    "V1": ("demo", {}),
    "V1, averaged logits": ("demo", {"model.classifier": "average", "model.reuse_glance": True}),
    "AdaFocus+": ("demo-plus", {}),
    "V2": ("demo-v2", {"model.reuse_glance": True}),
    "Uni": ("demo-uni", UNI),
    "Uni per clip": ("demo-uni", {**PER_CLIP, **UNI}),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, tiny_changes: dict[str, object]) -> AdaFocus:
    recipe, changes = MODELS[request.param]
    torch.manual_seed(0)
    return build_model(override(RECIPES[recipe](), {**tiny_changes, **changes}), 5).eval()


@pytest.fixture
def batch(model: AdaFocus, make_batch: Callable[..., Batch]) -> Batch:
    return make_batch(model.config, 9, 5, 3)


def predicted(model: AdaFocus, batch: Batch) -> Predictions:
    with torch.no_grad():
        output = model(batch.glance_BTCHW, batch.focus_BTCHW)
    return Predictions(batch.clip_ids, batch.labels_BL, output.logits_BTK, None, None, output.choice.looks_BT)


def calibrated(model: AdaFocus, predictions: Predictions) -> Calibration:
    costs = multiply_adds.exit_costs(model.config, 5)
    return solve(predictions, costs, criterion="confidence", clips="train", digest="")


def test_clips_stop_where_their_certainty_says(model: AdaFocus, batch: Batch) -> None:
    predictions = predicted(model, batch)
    calibration = calibrated(model, predictions)
    certainty_NX = certainty(predictions.logits_NTK, "confidence")
    stopped = []
    for rule in calibration.rules():
        # The threshold is one clip's own certainty: what it is in another batch may be less by rounding.
        rule = ExitRule(tuple(threshold - 1e-5 for threshold in rule.thresholds), rule.criterion, rule.budget)
        exits_N = choose_exits(certainty_NX, rule.thresholds)
        logits_BK, exits_B = predict_early(model, batch, rule)
        assert exits_B.tolist() == exits_N.tolist()
        wanted = predictions.logits_NTK[torch.arange(9), exits_N]
        torch.testing.assert_close(logits_BK, wanted, rtol=1e-4, atol=1e-5)
        stopped.append(len(set(exits_B.tolist())))
    assert max(stopped) == len(model.exit_frames), "some budget spreads the clips over all exits"


def test_what_is_computed_is_what_the_exits_cost(model: AdaFocus, batch: Batch) -> None:
    predictions = predicted(model, batch)
    calibration, looks_NT = calibrated(model, predictions), predictions.looks_NT
    cost_NX = torch.tensor(calibration.costs, dtype=torch.float64).expand(9, -1)
    if looks_NT is not None:  # then a clip costs what it was looked at
        cost_NX = multiply_adds.clip_costs(model.config, 5, looks_NT)
    for rule in calibration.rules()[::-5]:
        counted = multiply_adds.count_run(model, lambda rule=rule: predict_early(model, batch, rule))
        _, exits_B = predict_early(model, batch, rule)
        assert counted["total"] == pytest.approx(float(cost_NX[torch.arange(9), exits_B].sum()))


def test_frames_at_whose_exits_nobody_stops_are_computed_together() -> None:
    rule = ExitRule((NOBODY, 1.0, NOBODY, NOBODY, 2.0, NOBODY, EVERYBODY), "confidence", 1.0)
    assert rule.portions() == [range(0, 2), range(2, 5), range(5, 7)]
    assert ExitRule((EVERYBODY,), "confidence", 1.0).portions() == [range(0, 1)]


def test_budgets_are_met_on_the_clips_that_thresholds_come_from(model: AdaFocus, batch: Batch) -> None:
    predictions = predicted(model, batch)
    calibration = calibrated(model, predictions)
    certainty_NX = certainty(predictions.logits_NTK, "confidence")
    means = [
        sum(calibration.costs[number] for number in choose_exits(certainty_NX, rule.thresholds).tolist()) / 9
        for rule in calibration.rules()
    ]
    assert means == sorted(means) and means[-1] == pytest.approx(calibration.costs[-1])
    assert -1e-9 <= calibration.budgets[0] - calibration.costs[0] < calibration.costs[-1] / STEPS
    # Of nine clips up to three (one for each exit but the last) stop later than they should.
    assert all(
        0 <= mean - budget + 1e-9 <= calibration.costs[-1] / 3
        for mean, budget in zip(means, calibration.budgets, strict=True)
    )


def test_a_budget_takes_the_largest_one_within_it(model: AdaFocus, batch: Batch) -> None:
    calibration = calibrated(model, predicted(model, batch))
    first, second = calibration.budgets[:2]
    assert calibration.rule(second).budget == second == calibration.rule(second * 1.01).budget
    assert calibration.rule(second * 0.99).budget == first
    assert calibration.rule(99.0).budget == calibration.costs[-1]
    with pytest.raises(UserError, match=r"is below .* the least that this model is calibrated for"):
        calibration.rule(first * 0.99)
    exits = len(model.exit_frames)
    assert calibration.pro_rata(torch.arange(exits)) == pytest.approx(calibration.costs[-1] * (exits + 1) / 2 / exits)


def test_a_record_of_thresholds_that_makes_no_sense_is_one_line() -> None:
    assert Calibration.of({}) is None
    with pytest.raises(UserError, match="calibrate again"):
        Calibration.of({"budgets": []})


def test_exits_of_a_model_that_sees_the_whole_clip_cost_the_same(tiny_form: Callable[[Config], Config]) -> None:
    for recipe in ("ssv1-144", "ssv1-v2-144"):
        costs = multiply_adds.exit_costs(tiny_form(RECIPES[recipe]()), 5)
        assert len(set(costs)) == 1
