"""Search spaces: what a user may write, which trials that means, and the space of every recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from adafocus.config.overrides import flatten, override
from adafocus.methods import method_of
from adafocus.methods.identity import stage_key
from pipelines.recipes import RECIPES
from pipelines.recipes.cpu import demo
from pipelines.sweeps.search.distributions import DISTRIBUTIONS, draw
from pipelines.sweeps.search.space import Space, order_for_sharing
from pipelines.sweeps.search.space_text import parse_space, recipe_space
from preprocessing.schema import UserError

DRAWN = {
    "adafocus": {"ppo.gamma", "ppo.lr", "ppo.reward", "warmup.head_lr", "model.grid_size", "model.finetune_dropout"},
    "adafocus-plus": {"skip.lr", "skip.head_lr", "skip.update_epochs"},
    "adafocus-v2": {"joint.lr", "joint.policy_lr_scale"},
    "uni-adafocus": {"unified.lr", "unified.policy_lr_scale", "unified.size_weight"},
}
"""Settings that every space of a method draws."""
RANGES = {
    "adafocus": ("ppo.lr", "ppo.gamma"),
    "adafocus-plus": ("skip.lr", "skip.head_lr"),
    "adafocus-v2": ("joint.lr", "joint.policy_lr_scale"),
    "uni-adafocus": ("unified.lr", "unified.policy_lr_scale", "unified.size_weight"),
}

LARGE = 2**53 + 1
"""A whole number that no float can hold."""


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_space_of_every_recipe_fits_it(recipe: str) -> None:
    """Every value is a legal one, the recipe's patch size among them, and all trials share one pretrain."""
    config = RECIPES[recipe]()
    space = parse_space(config, [], [], recipe_space(recipe, config))
    space.check(config)
    assert DRAWN[config.method] <= space.keys
    assert config.method != "adafocus" or "model.patch_size" in space.keys
    assert config.model.patch_size in space.sample.get("model.patch_size", ("", [config.model.patch_size]))[1]
    points = space.points(config, 40)
    assert len(points) == 40
    shared = "pretrain" in method_of(config).stage_names
    keys = set()
    for point in points:
        changed = override(config, point)
        assert changed.model.patch_size < changed.data.crop and changed.model.grid_size >= 3
        assert changed.warmup.backbone_lr == 0 or config.warmup.backbone_lr > 0
        if shared:
            keys.add(stage_key(changed, "pretrain", "d"))
    assert keys == ({stage_key(config, "pretrain", "d")} if shared else set())


def test_ranges_hold_the_recipe_own_values() -> None:
    for recipe, make in RECIPES.items():
        config = make()
        space, own = parse_space(config, [], [], recipe_space(recipe, config)), flatten(config)
        for key in RANGES[config.method]:
            low, high = space.sample[key][1]
            assert low <= own[key] <= high, (recipe, key)


def test_draws_are_seeded_and_more_samples_only_add() -> None:
    space = Space({"ppo.gamma": [0.5, 0.7]}, {"ppo.lr": ("loguniform", [1e-5, 1e-3])})
    config = demo()
    three, five = space.points(config, 3), space.points(config, 5)
    assert len(three) == 6 and five[:6] == three and len(five) == 10
    assert all(1e-5 <= point["ppo.lr"] <= 1e-3 for point in five)
    other = space.points(dataclasses.replace(config, seed=1), 3)
    assert {point["ppo.lr"] for point in other}.isdisjoint(point["ppo.lr"] for point in three)


def test_every_distribution_stays_in_its_range() -> None:
    arguments = {
        "uniform": [0.2, 0.4],
        "loguniform": [1e-4, 1e-2],
        "quniform": [0.1, 0.5, 0.1],
        "randint": [3.0, 6.0],
        "choice": ["a", "b"],
    }
    assert arguments.keys() == DISTRIBUTIONS.keys()
    rng = np.random.default_rng(0)
    drawn = {name: {draw(name, values, rng) for _ in range(300)} for name, values in arguments.items()}
    assert drawn["randint"] == {3, 4, 5} and drawn["choice"] == {"a", "b"}
    assert {round(value, 6) for value in drawn["quniform"]} == {0.1, 0.2, 0.3, 0.4, 0.5}
    assert 0.2 <= min(drawn["uniform"]) < 0.21 and 0.39 < max(drawn["uniform"]) <= 0.4
    below = sum(value < 1e-3 for value in drawn["loguniform"])
    assert 110 < below < 190, "half of the draws are in the lower decade"


def test_the_same_point_is_tried_once() -> None:
    space = Space({}, {"ppo.update_epochs": ("randint", [1.0, 3.0])})
    assert sorted(point["ppo.update_epochs"] for point in space.points(demo(), 20)) == [1, 2]


def test_trials_that_share_a_stage_do_not_start_side_by_side() -> None:
    """Four values of gamma, two learning rates of the last stage: the first four trials need four different ppo's."""
    space = parse_space(demo(), ["finetune.head_lr=1e-3,2e-3", "ppo.gamma=0.1,0.2,0.3,0.4"], [])
    config = demo()
    ordered = order_for_sharing(space.points(config, 1), config, "d")
    assert len(ordered) == 8
    assert {point["ppo.gamma"] for point in ordered[:4]} == {0.1, 0.2, 0.3, 0.4}
    both = parse_space(demo(), ["warmup.head_lr=1e-3,2e-3", "ppo.gamma=0.1,0.2"], [])
    firsts = order_for_sharing(both.points(config, 1), config, "d")[:2]
    assert {point["warmup.head_lr"] for point in firsts} == {1e-3, 2e-3}


def test_a_file_and_the_command_line_join(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("grid:\n  ppo.gamma: [0.5, 0.7]\n  seed: [0, 1]\nsample:\n  ppo.lr: loguniform:1e-5:1e-3\n")
    space = parse_space(demo(), ["ppo.gamma=0.9"], ["seed=randint:0:9"], file)
    assert space.grid == {"ppo.gamma": [0.9]}
    assert space.sample == {"ppo.lr": ("loguniform", [1e-5, 1e-3]), "seed": ("randint", [0.0, 9.0])}


@pytest.mark.parametrize(
    ("grid", "sample", "message"),
    [
        (["ppo.gama=1"], [], "unknown setting 'ppo.gama'"),
        (["ppo.gamma="], [], "is not of the form --grid key=v1,v2"),
        (["ppo.gamma=a"], [], "ppo.gamma is 'a', but has to be a number"),
        ([], ["ppo.reward=choice:random:none"], "ppo.reward is 'none', but has to be one of"),
        ([], ["ppo.lr=uniform:2:1"], "ppo.lr: uniform:2.0:1.0 is no range"),
        ([], ["ppo.lr=loguniform:0:1"], "is no range"),
        ([], ["ppo.lr=loguniform:-1:1"], "is no range"),
        ([], ["ppo.lr=uniform:0:inf"], "is no range"),
        ([], ["ppo.lr=uniform:nan:1"], "is no range"),
        ([], ["ppo.lr=quniform:0:1:0"], "is no range"),
        ([], ["ppo.lr=quniform:-1:0:-0.1"], "is no range"),
        ([], ["ppo.epochs=randint:1.5:4"], "is no range"),
        ([], ["seed=randint:0:99999999999999999999"], "is no range"),
        ([], ["ppo.epochs=uniform:1:2.5"], "ppo.epochs is '2.*', but has to be a whole number"),
        ([], ["ppo.lr=uniform:a:1"], "needs numbers"),
    ],
)
def test_what_is_wrong_is_said(grid: list[str], sample: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_space(demo(), grid, sample).check(demo())


@pytest.mark.parametrize("sample", ["ppo.lr=uniform:-1:0", "ppo.lr=quniform:-1:0:0.1", "seed=randint:-3:0"])
def test_a_range_below_zero_is_a_range_and_the_setting_says_what_it_takes(sample: str) -> None:
    with pytest.raises(UserError, match=r"(ppo.lr|seed) is -\d, but has to be a (whole )?number, (above|at least) 0"):
        parse_space(demo(), [], [sample]).check(demo())


def test_values_have_the_types_of_their_settings() -> None:
    grid = ["ppo.epochs=3,4.0", "model.reuse_glance=true,0", "data.crop_scales=1", "model.finetune_dropout=none,0.5"]
    space = parse_space(demo(), grid, ["ppo.batch_size=choice:4:8", "warmup.batch_size=quniform:4:12:4"])
    assert space.grid == {
        "ppo.epochs": [3, 4],
        "model.reuse_glance": [True, False],
        "data.crop_scales": [(1.0,)],
        "model.finetune_dropout": [None, 0.5],
    }
    assert space.sample["ppo.batch_size"] == ("choice", [4, 8])
    (point, *_) = space.points(demo(), 1)
    assert {type(value) for key, value in point.items() if key.endswith(("epochs", "batch_size"))} == {int}
    assert space.texts()["model.finetune_dropout"] == "none, 0.5"


@pytest.mark.parametrize(
    "text",
    [
        *("grid: 3", "- a", "sample: [", "grids: {}", "grid: {ppo.gamma: 3}"),
        'grid: {seed: "12"}',  # a text, not the values 1 and 2
        "grid: {model.action: grid}",
        "grid: {seed: {1: 2}}",
        "grid: {seed: [1]}  # caf\xe9",  # Latin-1
        "grid: {seed: [1], seed: [2]}",  # of which YAML would keep the last
        "grid: {seed: [1]}\ngrid: {ppo.gamma: [0.5]}",
        "grid: {~: [1]}",
        "grid: {seed: []}",
        "sample: {ppo.lr: [loguniform, 1e-5, 1e-3]}",
        "sample: {ppo.lr: ~}",
        *("", "# nothing", "grid:\nsample:\n", "\xff\xfeg\0r\0", "grid: " + "[" * 5000),
    ],
)
def test_a_file_that_is_no_space_is_named(text: str, tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"the space file .*space.yaml cannot be read") as raised:
        parse_space(demo(), [], [], file)
    assert "\n" not in str(raised.value)


def test_a_file_is_read_as_utf8_and_quoted_numbers_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text('# café\ngrid: {ppo.gamma: ["0.5", 0.7], seed: ["12", 3]}\n', encoding="utf-8-sig")
    assert parse_space(demo(), [], [], file).grid == {"ppo.gamma": [0.5, 0.7], "seed": [12, 3]}


def test_numbers_are_read_as_people_write_them_and_not_as_yaml_does(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("grid: {seed: [010, 1e3, &one 1, *one], model.reuse_glance: [yes, off], ppo.lr: [1e-4]}\n")
    space = parse_space(demo(), [], [], file)
    assert space.grid == {"seed": [10, 1000, 1, 1], "model.reuse_glance": [True, False], "ppo.lr": [1e-4]}
    for text, words in (("grid: {seed: [1:30]}", "seed is '1:30'"), ("grid: {1: [2]}", "unknown setting '1'")):
        file.write_text(text)
        with pytest.raises(UserError, match=words):
            parse_space(demo(), [], [], file)
    with pytest.raises(UserError, match="there is no such file"):
        parse_space(demo(), [], [], tmp_path / "none.yaml")


def test_large_seeds_are_drawn_as_they_are_written() -> None:
    space = parse_space(demo(), [f"seed={LARGE},{LARGE}.0"], [f"ppo.epochs=randint:{LARGE}:{LARGE + 1}"])
    assert space.grid == {"seed": [LARGE, LARGE]}
    assert space.points(demo(), 1)[0]["ppo.epochs"] == LARGE


@pytest.mark.parametrize(
    ("grid", "sample", "words"),
    [
        (["ppo.gamma=0.5,7"], [], "ppo.gamma is 7, but has to be a number, at least 0 and at most 1"),
        (["ppo.batch_size=32,-8"], [], "ppo.batch_size is -8, but has to be a whole number, at least 1"),
        ([], ["model.dropout=uniform:0:3"], "model.dropout is 3, but has to be a number, at least 0 and below 1"),
        ([], ["ppo.gamma=choice:0.5:1.5"], "ppo.gamma is 1.5"),
        ([], ["model.grid_size=quniform:1:7:2"], "model.grid_size is 0, but has to be a whole number, at least 2"),
        (["model.patch_size=44,113"], [], "model.patch_size is 113, but frames have data.crop = 112"),
        (["finetune.accumulate=1,3"], [], "finetune.batch_size is 32, but has to be a multiple"),
    ],
)
def test_values_outside_their_bounds_are_refused_before_anything_starts(
    grid: list[str], sample: list[str], words: str
) -> None:
    with pytest.raises(UserError) as error:
        parse_space(demo(), grid, sample).check(demo())
    assert words in str(error.value)


def test_values_inside_their_bounds_are_not() -> None:
    ranges = ["model.dropout=uniform:0:1", "model.grid_size=randint:2:8", "ppo.clip=quniform:0.1:0.32:0.1"]
    parse_space(demo(), [], ranges).check(demo())
    parse_space(demo(), ["ppo.batch_size=6,9", "ppo.accumulate=3"], []).check(demo())  # they fit each other
