"""What earlier versions left on disk is read as they meant it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from adafocus.checkpoint import META, load_model
from adafocus.config.overrides import override
from pipelines.recipes import RECIPES

OLD: dict[str, Any] = json.loads((Path(__file__).parents[2] / "golden" / "checkpoint_0_1.json").read_text())
"""Of a checkpoint of each of version 0.1's two families: meta.json, names and shapes of its tensors."""


@pytest.mark.parametrize(("family", "recipe"), [("untrimmed", "activitynet-128"), ("trimmed", "ssv1-144")])
def test_a_checkpoint_of_version_0_1_loads(family: str, recipe: str, tmp_path: Path) -> None:
    old = OLD[family]
    tensors = {
        name: torch.zeros(shape, dtype=torch.int64 if name.endswith("num_batches_tracked") else torch.float32)
        for name, shape in old["tensors"].items()
    }
    save_file(tensors, tmp_path / old["meta"]["weights"])
    (tmp_path / META).write_text(json.dumps(old["meta"]))
    model, meta = load_model(tmp_path)
    kept = {key: value for key, value in meta.config.items() if key != "model.family"}
    assert model.config == override(RECIPES[recipe](), kept), "the recipe says today what the family said then"
    assert {name: list(value.shape) for name, value in model.state_dict().items()} == old["tensors"]
    assert model.is_causal == (family == "untrimmed")
    assert meta.lacking("policy") == [] and meta.metrics == {"finetune/val_top1": 50.0}
    frames = [
        torch.zeros(1, meta.config[f"data.{name}"], 3, 32, 32, dtype=torch.uint8)
        for name in ("num_frames", "num_focus_frames")
    ]
    assert model(*frames).logits_BTK.shape[-1] == 3
