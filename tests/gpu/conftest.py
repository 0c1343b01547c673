"""The rig that every check here runs on: `make gpu-check`, or tiny on a CPU among the other tests."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from helpers.gpu_recorder import REPORT, UNTIL
from helpers.gpu_report import Report
from helpers.gpu_rig import Rig

GPU_SHARDS = Path(__file__).parents[2] / "gpu-shards"


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Rig:
    """The device of the check's form, with what it has to know."""
    stash = request.config.stash

    def shards() -> str:
        if request.param == "cpu":
            return request.getfixturevalue("synthetic_shards")
        assert (GPU_SHARDS / "index.parquet").exists(), "there are no gpu-shards/: run `make gpu-prepare` first"
        return str(GPU_SHARDS)

    part = request.path.stem.removeprefix("test_").replace("_", " ")
    rig = Rig(torch.device(request.param), part, stash.get(REPORT, Report()), shards, stash.get(UNTIL, math.inf))
    if not rig.has_time(request.node.name, 1.0):
        pytest.skip(f"left out: {request.node.name}")
    return rig
