"""The names of metrics."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.tracking import metric_names

ROOT = Path(__file__).parents[3]


def test_the_readme_has_the_table_of_metrics() -> None:
    assert metric_names.table() in (ROOT / "docs/metrics.md").read_text()


@pytest.mark.parametrize("name", ["ppo/loss", "finetune/val_map", "ppo/reward_t07", "bench/warmup_random/map"])
def test_known_names(name: str) -> None:
    assert metric_names.explain(name)


@pytest.mark.parametrize(
    "name", ["ppo/losses", "val_maps", "bench/policy/", "online/policy/hit", "pretrain/val_x_top1"]
)
def test_unknown_names(name: str) -> None:
    assert metric_names.explain(name) is None
