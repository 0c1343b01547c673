"""Training by whole shards: the same clips, goes on inside an epoch, and names its results apart."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from adafocus.checkpoint import read_meta
from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.data.loader import ClipLoader
from adafocus.data.stream import ClipStream
from adafocus.data.training_reader import training_loader
from adafocus.training.reports import Options
from adafocus.training.stage_runner import run_stage

SHARE = {"batch_size": 2, "accumulate": 2, "seed": 0, "rank": 0, "world_size": 1, "num_workers": 0}


def test_the_setting_chooses_the_reader(tiny_config: Config, synthetic_shards: str) -> None:
    kinds = {"random": ClipLoader, "stream": ClipStream}
    for name, kind in kinds.items():
        data = override(tiny_config, {"data.reader": name}).data
        loader = training_loader(synthetic_shards, data, **SHARE)
        assert type(loader) is kind and len(loader) == 12 and loader.global_clips == 4
        assert loader.spec.height == 40


@pytest.mark.parametrize("start", [0, 5, 12])
def test_a_stream_goes_on_inside_an_epoch(start: int, tiny_config: Config, synthetic_shards: str) -> None:
    loader = training_loader(synthetic_shards, override(tiny_config, {"data.reader": "stream"}).data, **SHARE)
    loader.set_epoch(3)
    whole = list(loader)
    assert len(whole) == len(loader) and len({i for batch in whole for i in batch.clip_ids}) == 24
    loader.set_epoch(3)
    loader.skip(start)
    rest = list(loader)
    assert len(rest) == len(loader) - start
    for one, other in zip(itertools.islice(whole, start, None), rest, strict=True):
        assert one.clip_ids == other.clip_ids and torch.equal(one.glance_BTCHW, other.glance_BTCHW)
    with pytest.raises(ValueError, match="cannot skip 13 of 12 batches"):
        loader.skip(13)


def test_a_stage_that_is_trained_by_a_stream_has_a_name_of_its_own(
    tiny_config: Config, synthetic_shards: str, tmp_path: Path
) -> None:
    config = override(tiny_config, {"pretrain.epochs": 1, "data.reader": "stream"})
    options = Options(device="cpu")
    folders = [
        run_stage("pretrain", each, shards=synthetic_shards, runs=tmp_path, options=options, report=lambda row: None)
        for each in (config, override(config, {"data.reader": "random"}))
    ]
    assert len(set(folders)) == 2
    metas = [read_meta(folder) for folder in folders]
    assert metas[0].config["data.reader"] == "stream" and "pretrain/val_focuser_top1" in metas[0].metrics
    assert metas[0].extraction == metas[1].extraction
