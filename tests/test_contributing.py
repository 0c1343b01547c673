"""The examples of CONTRIBUTING.md, run as they stand there."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.data.batches import Batch
from adafocus.methods import build_model
from adafocus.methods.identity import stage_key
from adafocus.training.reports import EpochReport, Options
from adafocus.training.stage_runner import run_stage
from helpers.commands import blocks
from helpers.packing import pack
from helpers.tiny import TINY
from pipelines.paths import Places
from pipelines.recipes.cpu import demo
from pipelines.sweeps.plan import make_scheduler
from pipelines.sweeps.search.space import Space
from pipelines.sweeps.sweep import Sweep
from preprocessing.datasets import find_dataset
from preprocessing.schema import ExtractionSpec
from preprocessing.shards.planning.job import Job
from preprocessing.shards.storage import Store

PAGE = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
EXAMPLES = {
    heading: [content for language, content in blocks(section) if language == "python"]
    for heading, section in re.findall(r"^## (Add .+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
}


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """add(heading) puts the example's file into the package and its line into the table; the file's module."""

    def put(heading: str) -> ModuleType:
        file, line = EXAMPLES[heading]
        module = _load(file, monkeypatch)
        table, place = re.fullmatch(r"# line for (\w+) in (.+)\.py", line.splitlines()[0]).groups()  # type: ignore[union-attr]
        home = importlib.import_module(place.removesuffix("/__init__").replace("/", "."))
        old, names = getattr(home, table), vars(home) | vars(module)
        if isinstance(old, dict):
            new: Any = {**old, **eval(f"{{{line}}}", names)}
            monkeypatch.setattr(home, table, new)
            for key, value in new.items():
                monkeypatch.setitem(old, key, value)  # for modules that imported the table
        else:
            monkeypatch.setattr(home, table, (*old, eval(f"({line})", names)))
        return module

    return put


def _load(file: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Module of an example, under the name that its first line gives it."""
    name = re.fullmatch(r"# (.+)\.py", file.splitlines()[0])[1].replace("/", ".")  # type: ignore[index]
    module = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(file, name, "exec"), vars(module))
    return module


@pytest.mark.parametrize("heading", EXAMPLES)
def test_examples_are_one_short_file_and_one_line(heading: str) -> None:
    file, line = EXAMPLES[heading]
    assert len(file.strip().splitlines()) < 20 and len(line.strip().splitlines()) == 2
    assert ast.get_docstring(ast.parse(file))


def test_a_data_set(add: Callable[[str], ModuleType], make_video: Callable[..., Path], tmp_path: Path) -> None:
    add("Add a data set")
    make_video(tmp_path / "data/swim/a.mp4")
    make_video(tmp_path / "data/run/val_b.mp4", seed=1)
    info, clips = find_dataset("sports").read_clips(tmp_path / "data")
    job = Job(Store(tmp_path / "shards"), tmp_path / "data", info, ExtractionSpec(height=32))
    rows = pack(job, clips).table.to_pylist()
    assert {(row["clip_id"], row["split"], *row["labels"], row["status"], row["num_frames"]) for row in rows} == {
        ("swim/a.mp4", "train", 1, "ok", 12),
        ("run/val_b.mp4", "val", 0, "ok", 12),
    }


def test_a_backbone(add: Callable[[str], ModuleType], make_batch: Callable[..., Batch]) -> None:
    module = add("Add a backbone")
    name = module.Plain.__name__.lower()
    config = override(demo(), {**TINY, "model.glancer": name, "model.focuser": name})
    model = build_model(config, 3).eval()
    batch = make_batch(config, 2, 3, seed=0)
    with torch.no_grad():
        output = model(batch.glance_BTCHW, batch.focus_BTCHW)
    assert output.logits_BTK.shape == (2, config.data.num_focus_frames, 3) and output.logits_BTK.isfinite().all()


def test_a_method(add: Callable[[str], ModuleType], tiny_config: Config, synthetic_shards: str, tmp_path: Path) -> None:
    method = add("Add a method").CENTRE
    config = override(tiny_config, {"method": "centre", "pretrain.epochs": 1, "warmup.epochs": 1})
    for stage in method.stage_names:
        options, reports = Options(device="cpu"), list[EpochReport]()
        run_stage(stage, config, shards=synthetic_shards, runs=tmp_path, options=options, report=reports.append)
    assert reports[0].stage == "warmup" and reports[0].metrics["warmup/val_top1"] >= 0
    other = override(config, {"method": "adafocus"})
    keys = [[stage_key(each, stage, "digest") for stage in method.stage_names] for each in (config, other)]
    assert keys[0][0] == keys[1][0] and keys[0][1] != keys[1][1]


def test_a_scheduler(add: Callable[[str], ModuleType], tmp_path: Path) -> None:
    module = add("Add a scheduler")
    places = Places.of("shards", tmp_path)
    sweep = Sweep("s", demo(), "demo", Space({"ppo.gamma": [0.5, 0.7, 0.9]}), places, scheduler="median")
    sweep.check()
    scheduler = make_scheduler(sweep)
    assert isinstance(scheduler, module.Median)
    for number, score in enumerate((90.0, 91.0)):
        scheduler.add_past_trial(str(number), [(epoch, score) for epoch in range(1, 11)])
    weak = Trial("any", stub=True, trial_id="weak")
    scheduler.on_trial_add(None, weak)
    decision = scheduler.on_trial_result(None, weak, {"judged_epoch": 3, "judged_score": 10.0})
    assert decision == TrialScheduler.STOP and scheduler.pruned == {"weak": 3}
