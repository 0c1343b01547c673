"""Configuration: overrides, and which field changes the name of which stage's result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adafocus.config.overrides import flatten, from_flat, override
from adafocus.config.schema import Config
from adafocus.methods import METHODS
from adafocus.methods.identity import stage_key, stage_reads
from helpers.tiny import STAGES
from pipelines.recipes import RECIPES
from preprocessing.schema import UserError

NAMES = sorted(flatten(Config()).keys() - {"method"})  # by whose name nothing is named: methods may share stages
OTHER: dict[str, Any] = {
    "data.focus_frames": "own",
    "data.frame_order": "spread",
    "data.reader": "stream",
    "model.glance_resize": "corners",
    "model.action_per": "clip",
    "model.head_dropout": 0.1,
    "model.action": "gaussian",
    "model.classifier": "average",
    "model.glancer_weights": "none",
    "model.focuser_weights": "none",
    "model.glancer": "tiny",
    "model.focuser": "tiny",
    "model.finetune_dropout": 0.1,
    "ppo.reward": "previous",
    "pretrain.loss": "frame",
    "data.crop_scales": (1.0,),
}
"""Values other than the default, where adding one will not do."""


def perturbed(name: str) -> Config:
    value = flatten(Config())[name]
    if name in OTHER:
        other = OTHER[name]
    elif name.endswith(".optimizer"):
        other = "adamw"
    elif name.endswith(".schedule"):
        other = "constant"
    elif name.endswith(".precision"):
        other = "bf16"
    elif name.endswith(".lr_batch_size"):
        other = 32
    elif name.endswith(".milestones"):
        other = (1,)
    else:
        other = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else value / 2 + 0.03
    return override(Config(), {name: other})


@pytest.mark.parametrize("name", NAMES)
def test_a_field_changes_the_keys_of_its_stage_and_those_after_it(name: str) -> None:
    read = False
    for title, method in METHODS.items():
        config, other = (override(each, {"method": title}) for each in (Config(), perturbed(name)))
        names = method.stage_names
        changed = [stage_key(config, stage, "d") != stage_key(other, stage, "d") for stage in names]
        assert changed == [name in stage_reads(method, stage) for stage in names]
        assert changed == sorted(changed), "a stage that reads a field precedes one that does not"
        read |= changed[-1]
    assert read, "no stage of any method reads this field"


def test_trials_that_differ_in_ppo_share_the_warmup() -> None:
    changed = override(Config(), {"ppo.lr": 1e-4, "ppo.gamma": "0.5", "model.grid_size": 5})
    same = [stage_key(Config(), stage, "d") == stage_key(changed, stage, "d") for stage in STAGES]
    assert same == [True, True, False, False]


def test_the_data_set_is_part_of_every_key() -> None:
    assert all(stage_key(Config(), stage, "d") != stage_key(Config(), stage, "e") for stage in STAGES)


def test_boxes_are_part_of_the_keys_of_stages_that_they_teach() -> None:
    def changed(config: Config) -> list[bool]:
        return [stage_key(config, stage, "d+1") != stage_key(config, stage, "d+2") for stage in STAGES]

    assert changed(override(Config(), {"ppo.box_reward": 1})) == [False, False, True, True]
    assert changed(Config()) == [False] * 4
    assert stage_key(Config(), "finetune", "d+1") == stage_key(Config(), "finetune", "d")


def test_a_weights_file_counts_by_its_content(tmp_path: Path) -> None:
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    keys = [
        stage_key(override(Config(), {"model.glancer_weights": str(tmp_path / name)}), "pretrain", "d")
        for name in "abc"
    ]
    assert keys[0] == keys[1] != keys[2]
    with pytest.raises(UserError, match="no such file"):
        stage_key(override(Config(), {"model.focuser_weights": str(tmp_path / "none")}), "pretrain", "d")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ppo.lrr": 1}, "unknown setting 'ppo.lrr'; the nearest known one is 'ppo.lr'"),
        ({"ppo": 1}, "unknown setting 'ppo'"),
        ({"seed.x": 1}, "unknown setting 'seed.x'"),
        ({"model.action": "gird"}, "one of grid, gaussian"),
        ({"model.patch_size": "12.5"}, "model.patch_size is '12.5', but has to be a whole number, at least 1"),
        ({"ppo.lr": "fast"}, "ppo.lr is 'fast'"),
        ({"model.policy_norm": "maybe"}, "model.policy_norm is 'maybe'"),
        ({"seed": 2.0**53}, "seed is '9.0072e.15', but has to be a whole number"),  # it may have been rounded
        ({"seed": "1e999999999"}, "seed is '1e999999999', but has to be a whole number"),
        ({"seed": "inf"}, "seed is 'inf'"),
    ],
)
def test_bad_settings_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        override(Config(), change)


def test_values_come_as_a_command_line_gives_them() -> None:
    config = override(
        Config(), {"ppo.lr": "1e-4", "model.policy_norm": "true", "data.crop_scales": "1,0.5", "seed": "3"}
    )
    assert (config.ppo.lr, config.model.policy_norm, config.data.crop_scales, config.seed) == (
        1e-4,
        True,
        (1.0, 0.5),
        3,
    )
    whole = {"9007199254740993": 2**53 + 1, "9007199254740993.0": 2**53 + 1, "1e3": 1000, " 7 ": 7, "16.0": 16}
    assert [override(config, {"seed": text}).seed for text in whole] == list(whole.values())
    assert override(config, {"model.finetune_dropout": "none"}).model.finetune_dropout is None


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_a_flat_configuration_reads_back(recipe: str) -> None:
    config = RECIPES[recipe]()
    assert from_flat(flatten(config)) == config
