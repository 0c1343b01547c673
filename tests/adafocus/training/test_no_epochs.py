"""A stage of no epochs is evaluated as it begins."""

from __future__ import annotations

from pathlib import Path

from adafocus.checkpoint import read_meta
from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.training.reports import EpochReport, Options
from adafocus.training.stage_runner import run_stage


def test_a_stage_of_no_epochs_has_one_row(tiny_config: Config, synthetic_shards: str, tmp_path: Path) -> None:
    config = override(tiny_config, {"pretrain.epochs": 0, "warmup.epochs": 0})
    rows: list[EpochReport] = []
    for stage in ("pretrain", "warmup"):
        options = Options(device="cpu")
        folder = run_stage(stage, config, shards=synthetic_shards, runs=tmp_path, options=options, report=rows.append)
        assert read_meta(folder).metrics == rows[-1].metrics
    assert [(row.stage, row.clock) for row in rows] == [("pretrain", 0), ("warmup", 0)]
    assert "pretrain/val_focuser_top1" in rows[0].metrics and "warmup/val_top1" in rows[1].metrics
    assert not {"pretrain/loss", "warmup/loss"} & (rows[0].metrics.keys() | rows[1].metrics.keys())
