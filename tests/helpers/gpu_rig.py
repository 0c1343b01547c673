"""What the checks of a GPU run on: the GPU with published sizes, or, to prove the checks themselves, a CPU with tiny
ones. The cases come from the tables of recipes and methods."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from torch import Tensor

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.data.batches import Batch
from adafocus.devices import colours_last
from adafocus.methods import METHODS, find_method
from adafocus.models.adafocus import AdaFocus
from helpers.gpu_report import Report, Row
from helpers.settled import CLASSES, settled_model, views
from helpers.tiny import shrink
from pipelines.recipes import RECIPES, find_recipe

FOR_SYNTHETIC = {
    **{"data.resize": 40, "data.crop": 40, "model.glance_size": 20},
    **{"model.patch_size": 16, "model.smallest_patch": 16},
}
"""Changes of the tiny form for the small data set of the tests on a CPU."""
NO_WEIGHTS = {"model.glancer_weights": "none", "model.focuser_weights": "none"}


def representatives() -> list[str]:
    """One recipe of each method and each way of feeding it: the first whose patches are nearest to 128 pixels."""
    groups: dict[tuple[str, str], list[str]] = {}
    sizes = {}
    for name, make in RECIPES.items():
        if make.__module__ != "pipelines.recipes.cpu":  # those for a CPU have other sizes
            config = make()
            groups.setdefault((config.method, config.data.focus_frames), []).append(name)
            sizes[name] = config.model.patch_size
    assert {method for method, _ in groups} == set(METHODS), "a method without a published recipe"
    return [min(names, key=lambda name: abs(sizes[name] - 128)) for names in groups.values()]


def stage_cases() -> list[tuple[str, str]]:
    """(recipe, stage) of every stage of every method, in every way of feeding it."""
    return [(name, stage) for name in representatives() for stage in find_method(find_recipe(name).method).stage_names]


def skips_frames(config: Config) -> bool:
    """Does a gate decide how many patches there are? Inference then waits for it once, and cannot be recorded."""
    return "gate" in find_method(config.method).parts


@dataclass(frozen=True, slots=True)
class Rig:
    """A device, the sizes that suit it, and the report that a part of the checks adds to."""

    device: torch.device
    part: str
    report: Report
    shards: Callable[[], str]
    """The small data set to train on."""
    until: float = math.inf
    """When the part's time is over, in seconds since 1970."""

    @property
    def is_gpu(self) -> bool:
        """Else everything is tiny and no goal holds."""
        return self.device.type == "cuda"

    def config(self, recipe: str, **changes: object) -> Config:
        """A recipe at its published sizes, or tiny on a CPU; without published weights."""
        config = override(find_recipe(recipe), NO_WEIGHTS)
        return override(config if self.is_gpu else shrink(config), {key: value for key, value in changes.items()})

    def model(self, config: Config) -> AdaFocus:
        """A settled model on the device, channels last."""
        model = copy.deepcopy(_settled(model_settings(config), CLASSES if self.is_gpu else 10, self.device))
        model.config = config
        return model

    def views(self, config: Config, clips: int, seed: int = 1) -> tuple[Tensor, Tensor]:
        """Smooth glance and focus frames on the device: one tensor where the networks share them."""
        return views(config, seed, clips, self.device)

    def batch(self, config: Config, clips: int, seed: int = 1) -> Batch:
        """Smooth frames with random labels, where a loader leaves them: in page-locked memory if there is a GPU."""
        glance_BTCHW, focus_BTCHW = self.views(config, clips, seed)
        if self.is_gpu:  # where they are made much faster
            shared = focus_BTCHW is glance_BTCHW
            glance_BTCHW = glance_BTCHW.cpu()
            focus_BTCHW = glance_BTCHW if shared else focus_BTCHW.cpu()
        labels_BL = torch.randint(5, (clips, 1), generator=torch.Generator().manual_seed(seed))
        batch = Batch(glance_BTCHW, focus_BTCHW, labels_BL, [f"clip {number}" for number in range(clips)])
        return batch.pin_memory() if self.is_gpu else batch

    def add(self, what: str, value: float, unit: str, note: str = "", **goal: float) -> None:
        """A row of the report; a goal (`at_least` or `at_most`) holds on a GPU only."""
        row = Row(self.part, what, value, unit, note, **goal)
        self.report.rows.append(row if self.is_gpu else replace(row, at_least=None, at_most=None))

    def has_time(self, what: str, needed_s: float) -> bool:
        """Is there time for something? If not, the report says that it was left out."""
        if self.until - time.time() >= needed_s:
            return True
        self.report.left_out.append(f"{self.part}: {what}")
        return False


def model_settings(config: Config) -> Config:
    """The recipe's settings that a model is made of; all others are the default's."""
    return Config(method=config.method, data=config.data, model=config.model, skip=config.skip)


@cache
def _settled(config: Config, classes: int, device: torch.device) -> AdaFocus:
    model = settled_model(config, classes, device)
    colours_last(model)
    return model


def missed(rig: Rig, since: int = 0) -> list[Row]:
    """Rows that a part has added, from a number on, whose goals were missed."""
    return [row for row in rig.report.rows[since:] if row.part == rig.part and row.missed]


CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
on_cpu_and_gpu = pytest.mark.parametrize("rig", ["cpu", CUDA], indirect=True)
"""A check runs twice: tiny on a CPU, where it proves itself, and on the GPU."""
on_slow_cpu_and_gpu = pytest.mark.parametrize("rig", [pytest.param("cpu", marks=pytest.mark.slow), CUDA], indirect=True)
"""The same, where even the tiny form takes seconds."""
