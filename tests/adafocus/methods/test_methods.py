"""The table of methods: what follows from what stages say of themselves."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest

from adafocus.config.schema import Config
from adafocus.methods import METHODS, build_model, find_method, stage_names
from adafocus.methods.adafocus import ADAFOCUS
from adafocus.methods.method import Method
from adafocus.stages.stage import Stage
from helpers.tiny import shrink
from pipelines.recipes.untrimmed import activitynet_128
from preprocessing.schema import UserError


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_trains_all_its_parts_and_has_settings_for_every_stage(method: Method) -> None:
    assert method.trained(method.last) == method.parts and not method.untrained(method.last)
    assert {stage.name for stage in method.stages} <= {field.name for field in dataclasses.fields(Config)}
    (name,) = (name for name, each in METHODS.items() if each is method)
    config = shrink(activitynet_128())
    data = replace(config.data, num_candidates=8 if method.chooses_frames else 0)
    sizes = replace(config.model, smallest_patch=8)
    model = build_model(replace(config, method=name, data=data, model=sizes), 3, pretrained=False)
    assert {name for name, _ in model.named_children()} == set(method.parts)


def test_a_stage_s_name_stands_for_one_class() -> None:
    """A result is named by its stage and settings: methods may share it only if the stage is the same."""
    classes: dict[str, set[type[Stage]]] = {}
    for method in METHODS.values():
        for stage in method.stages:
            classes.setdefault(stage.name, set()).add(stage)
    assert all(len(each) == 1 for each in classes.values()) and tuple(classes) == stage_names()


def test_what_is_trained_after_which_stage() -> None:
    assert [ADAFOCUS.trained(name) for name in ADAFOCUS.stage_names] == [
        ("glancer", "focuser"),
        ("glancer", "focuser", "classifier"),
        ADAFOCUS.parts,
        ADAFOCUS.parts,
    ]
    assert ADAFOCUS.lacking("pretrain", "policy") == ["policy", "classifier"]
    assert ADAFOCUS.lacking("pretrain", "glancer") == [] == ADAFOCUS.lacking("warmup", "random")
    assert ADAFOCUS.lacking("warmup", "policy") == ["policy"]
    assert [ADAFOCUS.before(name) for name in ADAFOCUS.stage_names] == [None, "pretrain", "warmup", "ppo"]


def test_the_clock_runs_through_all_stages() -> None:
    config = activitynet_128()
    assert [ADAFOCUS.first_epoch(config, name) for name in ADAFOCUS.stage_names] == [0, 15, 65, 115]


def test_unknown_methods_and_stages_are_named() -> None:
    with pytest.raises(UserError, match="unknown method 'adafocs'; the nearest known one is 'adafocus'"):
        find_method("adafocs")
    with pytest.raises(UserError, match="'joint' is none of the stages pretrain, warmup, ppo, finetune"):
        ADAFOCUS.stage("joint")
