"""A few steps of every stage against recorded numbers: a refactoring that should not move them does not.

After a change that should, `pytest tests/adafocus/test_golden_losses.py --record` writes tests/golden/losses.json anew.
Frames and labels come from NumPy's frozen generator, so that no video codec has a say. The tolerance is ten times the
largest difference between kernels for SSE, AVX2 and AVX-512 and between one and two threads.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.data.batches import Batch
from adafocus.methods import build_model, method_of
from adafocus.training.seeding import seed_step
from pipelines.recipes import RECIPES

FILE = Path(__file__).parents[2] / "golden" / "losses.json"
CASES = (
    *("activitynet-128", "ssv1-144", "demo", "folder", "activitynet-v2-128", "ssv1-v2-144"),
    *("activitynet-uni-128", "ssv1-uni-128-12"),
)
STEPS, CLIPS, CLASSES = 3, 4, 5
RTOL, ATOL = 2e-3, 2e-4


def steps_of(config: Config, make_batch: Callable[..., Batch]) -> dict[str, list[dict[str, float]]]:
    """What every step of every stage logs, each on a fresh model: rounding errors of one do not grow in the next."""
    logged: dict[str, list[dict[str, float]]] = {}
    for name, kind in ((stage.name, stage) for stage in method_of(config).stages):
        torch.manual_seed(0)
        stage = kind(build_model(config, CLASSES), config)
        optimizer = stage.optimizer()
        stage.train()
        logged[name] = []
        for step in range(STEPS):
            seed_step(0, name, 0, step, stage.draws)
            with torch.no_grad():
                collected = stage.collect(make_batch(config, CLIPS, CLASSES, seed=step))
            stage.prepare([collected])
            for _ in range(stage.updates_per_batch):
                loss, logs = stage(collected)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            logged[name].append({key: value.item() for key, value in {"loss": loss, **logs}.items()})
    return logged


@pytest.mark.parametrize("recipe", CASES)
def test_losses_are_those_recorded(
    recipe: str,
    tiny_form: Callable[[Config], Config],
    make_batch: Callable[..., Batch],
    pytestconfig: pytest.Config,
) -> None:
    config = tiny_form(RECIPES[recipe]())
    float32 = {f"{name}.precision": "float32" for name in method_of(config).stage_names}
    found = steps_of(override(config, float32), make_batch)
    recorded = json.loads(FILE.read_text()) if FILE.exists() else {}
    if pytestconfig.getoption("record"):
        rounded = {
            stage: [{key: float(f"{value:.6g}") for key, value in row.items()} for row in rows]
            for stage, rows in found.items()
        }
        FILE.write_text(json.dumps(recorded | {recipe: rounded}, indent=1) + "\n")
        return
    for stage, rows in recorded[recipe].items():
        for step, (row, wanted) in enumerate(zip(found[stage], rows, strict=True)):
            assert row.keys() == wanted.keys()
            for key, value in wanted.items():
                assert row[key] == pytest.approx(value, rel=RTOL, abs=ATOL), f"{stage}, step {step}, {key}"
