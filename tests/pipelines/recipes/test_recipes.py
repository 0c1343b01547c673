"""Every recipe in its tiny form takes a step of every stage, with its own optimizers and schedules.

Where it says fp16, in bf16: a CPU computes fp16 a hundred times slower (`test_stages.py` trains in it).
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable

import pytest
import torch

from adafocus.config.overrides import override
from adafocus.config.schema import Config, OptimConfig
from adafocus.data.batches import Batch
from adafocus.methods import build_model, method_of
from adafocus.methods.adafocus import ADAFOCUS
from adafocus.training.schedules import lr_factor, scaling_line
from pipelines.cli.main import main
from pipelines.recipes import RECIPES, find_recipe
from pipelines.recipes.learning_rates import scale_rates
from preprocessing.schema import UserError


def _precision(config: Config, stage: str) -> str:
    return getattr(config, stage).precision


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_of_every_stage(
    recipe: str, tiny_form: Callable[[Config], Config], make_batch: Callable[..., Batch]
) -> None:
    config = tiny_form(RECIPES[recipe]())
    method = method_of(config)
    halves = [name for name in method.stage_names if _precision(config, name) == "fp16"]
    config = override(config, {f"{name}.precision": "bf16" for name in halves})
    torch.manual_seed(0)
    model = build_model(config, 5)
    batch = make_batch(config, 4, 5, seed=0)
    for name in method.stage_names:
        stage = method.stage(name)(model, config)
        optimizer = stage.optimizer()
        stage.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=stage.settings.precision == "bf16"):
            with torch.no_grad():
                collected = stage.collect(batch)
            if stage.whole_batch:
                stage.prepare([collected])
            loss, _ = stage(collected)
        before = {key: value.clone() for key, value in stage.named_parameters() if value.requires_grad}
        loss.backward()
        optimizer.step()
        assert math.isfinite(loss.item()), name
        moved = [key for key, value in stage.named_parameters() if key in before and not value.equal(before[key])]
        assert moved, name


def test_rates_follow_the_batch_where_the_optimizer_is_sgd(caplog: pytest.LogCaptureFixture) -> None:
    recipe = find_recipe("activitynet-128")
    smaller = override(recipe, {"warmup.batch_size": 16, "ppo.batch_size": 16})
    with caplog.at_level(logging.INFO):
        scaled = scale_rates(smaller, recipe)
    assert "ppo: rates are Adam's" in caplog.text and "warmup: rates" not in caplog.text
    assert scaled.warmup.lr_scale() == 0.25 and scaled.pretrain.lr_scale() == 1 and smaller.warmup.lr_scale() == 1
    assert scaled.ppo == smaller.ppo
    assert scaling_line("warmup", scaled.warmup) == (
        "warmup: rates for batch 64 scaled to batch 16: backbone_lr 0.0005 -> 0.000125, head_lr 0.05 -> 0.0125"
    )


def test_scaled_rates_reach_the_optimizer(tiny_form: Callable[[Config], Config]) -> None:
    changes = {"warmup.batch_size": 16, "warmup.lr_batch_size": 64}
    config = override(tiny_form(find_recipe("activitynet-128")), changes)
    groups = ADAFOCUS.stage("warmup")(build_model(config, 5), config).optimizer().param_groups
    assert sorted(group["lr"] for group in groups) == [0.000125, 0.0125]


def test_something_something_pretrains_in_steps() -> None:
    settings: OptimConfig = find_recipe("ssv1-144").pretrain
    rates = [lr_factor(settings, epoch, 0.0) for epoch in (0, 19, 20, 39, 40, 49)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UserError, match="nearest known one is 'ssv1-144'"):
        find_recipe("ssv1-14")


PUBLISHED = {
    **{"activitynet-96": 17.2, "activitynet-128": 26.5, "activitynet-160": 38.5, "activitynet-192": 53.2},
    **{"ssv1-144": 23.5, "ssv1-160": 27.5, "ssv1-176": 33.7},
    **{"ssv1-v2-128": 18.5, "ssv1-v2-144": 23.5, "ssv1-v2-160": 27.5, "ssv1-v2-176": 33.7},
    **{"activitynet-uni-96": 17.9, "activitynet-uni-128": 27.2, "activitynet-uni-160": 39.2},
    **{"ssv1-uni-96-8": 8.8, "ssv1-uni-96-12": 11.8, "ssv1-uni-128-12": 18.8, "ssv1-uni-128-16": 24.2},
}


@pytest.mark.slow
def test_the_command_line_counts_what_recipes_cost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["adafocus", "recipes", "--flops", *arguments])
        with pytest.raises(SystemExit):
            main()
        return capsys.readouterr().out

    rows = {row["recipe"]: row for row in json.loads(printed("--json"))}
    assert rows.keys() == RECIPES.keys()
    assert {name: round(rows[name]["gflops"]["total"], 1) for name in PUBLISHED} == PUBLISHED
    for name, row in rows.items():
        for counts in (row["gflops"], row["parameters"]):
            total = counts.pop("total")
            assert set(counts) == set(method_of(RECIPES[name]()).parts) and min(counts.values()) > 0
            assert sum(counts.values()) == pytest.approx(total)
            counts["total"] = total
    # ResNet-50 without its thousand classes, as torchvision documents it, and with 200.
    assert rows["activitynet-128"]["parameters"]["focuser"] == 25_557_032 - 800 * 2049
    table = {line.split()[0]: line.split() for line in printed().splitlines()[2:]}
    assert {name: float(table[name][-2]) for name in PUBLISHED} == PUBLISHED
    assert all(table[name][-1] == f"{row['parameters']['total'] / 1e6:.1f}" for name, row in rows.items())
