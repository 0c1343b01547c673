"""What recipes cost: multiply-adds per video and parameters by part, counted on the model's modules."""

from __future__ import annotations

import functools
from typing import Any

import torch
from rich.table import Table

from adafocus.config.schema import Config, DataConfig, ModelConfig, SkipConfig
from adafocus.evaluation import multiply_adds
from adafocus.methods import build_model, part_names
from pipelines.recipes import RECIPES

NUM_CLASSES = {
    "activitynet": 200,
    "fcvid": 239,
    "minikinetics": 200,
    "ssv1": 174,
    "ssv2": 174,
    "demo": 10,
    "folder": 10,
    "lips": 4,
    "sky": 4,
}
"""Of the data sets after which recipes are named; for your own clips an example."""


def recipe_cost(name: str) -> dict[str, Any]:
    """What a recipe's model costs: number of classes, giga multiply-adds per video and parameters by part.

    Counted on its modules, of which nothing is computed: no weights are needed.
    """
    config, classes = RECIPES[name](), NUM_CLASSES[name.partition("-")[0]]
    return {"classes": classes, **_count(config.method, config.data, config.model, config.skip.budget, classes)}


@functools.cache
def _count(method: str, data: DataConfig, model: ModelConfig, budget: float, classes: int) -> dict[str, Any]:
    """Recipes of different data sets share networks: each is counted once."""
    config = Config(method=method, data=data, model=model, skip=SkipConfig(budget=budget))
    with torch.device("meta"):
        network = build_model(config, classes, pretrained=False).eval()
    return {"gflops": multiply_adds.count_model(network), "parameters": multiply_adds.parameters(network)}


def cost_table(costs: dict[str, dict[str, Any]]) -> Table:
    """The costs of several recipes as a table to print."""
    title = "giga multiply-adds per video, and parameters in millions"
    parts = part_names()
    table = Table("recipe", "classes", *parts, "total", "params", box=None, padding=(0, 1, 0, 0), title=title)
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for name, cost in costs.items():
        shown = [f"{cost['gflops'][part]:.4g}" if part in cost["gflops"] else "" for part in parts]
        total, millions = cost["gflops"]["total"], cost["parameters"]["total"] / 1e6
        table.add_row(
            name, str(cost["classes"]), *shown, f"{total:.1f}" if total > 1 else f"{total:.3g}", f"{millions:.1f}"
        )
    return table
