"""Uni-AdaFocus against numbers of the authors' code. Tolerances are those that tests/golden/V2.md gives for each field:
relative to its largest magnitude."""

from __future__ import annotations

import itertools
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.evaluation import multiply_adds
from adafocus.evaluation.exit_thresholds import Criterion, certainty, choose_exits, exit_shares, exit_thresholds
from adafocus.interop import reference_checkpoints, reference_export
from adafocus.interop.v2_names import tensor_places
from adafocus.methods import build_model
from adafocus.methods.uni_adafocus import UNI_ADAFOCUS
from adafocus.models.crop import crop_resized
from adafocus.models.frame_source import at_places
from adafocus.models.policies.box_policy import actions_of_frames, boxes_of, crop_map
from adafocus.models.policies.frame_policy import choose_places, expected_logits, left_out, smallest
from adafocus.models.uni_adafocus import UniAdaFocus
from adafocus.stages.unified import SAMPLES, Unified
from helpers.reference import NO_WEIGHTS, assert_near, golden, noise, video
from helpers.second_layout import check_gradients, check_running_statistics, imported
from pipelines.recipes import find_recipe

pytestmark = pytest.mark.usefixtures("each_device")
FRAMES = golden("uni_actnet*.json")
CLIPS = golden("uni_sth.json") + [case for case in golden("uni_sth_*.json") if "video_seed" in case.values[0]]
UNITS = golden("uni_units*.json")
PARTS = {
    **{f"cat_{name}": f"{name}_loss" for name in ("policy", "random")},
    **{f"final_{name}": f"{name}_loss" for name in ("policy", "random")},
    **{f"local_{name}": f"{name}_focuser_loss" for name in ("policy", "random")},
    **{"global": "glancer_loss", "temporal": "frames_loss", "spatial": "boxes_loss", "norm": "size"},
}
"""Their names of the eight losses, of both kinds, and ours."""
NO_DROPOUT = {"model.dropout": 0.0, "model.head_dropout": 0.0}


def config_of(case: dict) -> Config:
    per_frame = "num_segments" in case
    sizes = {
        "data.num_frames": case["num_glance_segments"],
        "data.num_focus_frames": case["num_focus_segments"],
        "data.num_candidates": case["num_segments"] if per_frame else case["num_input_focus_segments"],
        "model.patch_size": case["patch_size"],
        "model.policy_channels": case["stn_hidden_dim"],
        "model.temporal_channels": case["temporal_hidden_dim"],
    }
    recipe = find_recipe("activitynet-uni-128" if per_frame else "ssv1-uni-128-12")
    return override(recipe, {**sizes, **NO_WEIGHTS, **NO_DROPOUT})


def model_of(case: dict, folder: Path) -> UniAdaFocus:
    model = imported(config_of(case), case["num_classes"], folder)
    assert isinstance(model, UniAdaFocus)
    return model


def sets_of(seed: str, clips: int, glances: int) -> Tensor:
    """The forced sets of glances that were drawn before, bool (I, N, B, G)."""
    drawn = [
        np.random.RandomState(zlib.crc32(f"{seed}/mc/{number}".encode())).uniform(0, 1, (clips * SAMPLES, glances))
        for number in range(glances // 3)
    ]
    return smallest(torch.tensor(np.stack(drawn)).unflatten(1, (clips, SAMPLES)).transpose(1, 2))


def corners_of(patches: Tensor) -> Tensor:
    """Four corner pixels of maps or patches (..., P, P), as the last axis."""
    side = patches.shape[-1] - 1
    return torch.stack([patches[..., row, column] for row in (0, side) for column in (0, side)], -1)


@pytest.mark.parametrize("case", FRAMES)
@torch.no_grad()
def test_a_box_for_every_frame(case: dict, tmp_path: Path) -> None:
    model, wanted = model_of(case, tmp_path), case["eval"]
    glances, focused = case["num_glance_segments"], case["num_focus_segments"]
    frames = video(case["video_seed"], 2, case["num_segments"])
    output = model(frames[:, wanted["glance_indices"]], frames)
    glance, choice = output.glance, output.choice
    action_BS4, places_BF = model.actions(glance), choice.places_BF
    assert places_BF.tolist() == wanted["focus_indices"]
    frame_actions = actions_of_frames(action_BS4, case["num_segments"])
    boxes = model.boxes_at(action_BS4, places_BF)
    patches = model.crop_chosen(frames, choice)
    focus = model.focus(patches)
    cut = crop_map(glance.map_BTDhw, action_BS4, 224, 96, case["patch_size"])
    logits = model.prefixes(glance, focus)
    draws = sets_of(f"{case['video_seed']}/eval", 2, glances)
    for name, found in {
        "glance_feature_mean": glance.feature_BTD.mean(-1),
        "glance_map_std": glance.map_BTDhw.flatten(2).std(2, correction=0),
        "weights": model.weights(glance),
        "spatial_actions": action_BS4,
        "frame_actions": frame_actions,
        "focus_actions": at_places(frame_actions, places_BF),
        "patch_boxes": boxes,
        "patch_mean": patches.mean((2, 3, 4)),
        "patch_corners": corners_of(patches[:, 0]),
        "map_crop_mean": cut.mean((2, 3, 4)),
        "map_crop_corner": corners_of(cut[:, :, 0]),
        "logits": logits,
        "prediction": output.prediction_BK,
        "global_logits": glance.logits_BTK,
        "local_logits": model.focuser.head(focus),
        "spatial_logits": model.judged_map(glance, action_BS4),
        "temporal_logits_forced": expected_logits(glance.logits_BTK, model.weights(glance), draws),
        "temporal_logits_expected": exact(glance.logits_BTK, model.weights(glance)),
    }.items():
        assert_near(found, wanted[name], 1e-4, name)
    assert output.logits_BTK.shape[1] == len(model.exit_frames) == 1 + focused
    torch.testing.assert_close(output.logits_BTK, logits[:, glances - 1 :], rtol=1e-5, atol=1e-3)


def exact(logits_BGK: Tensor, weight_BG: Tensor) -> Tensor:
    """The Monte-Carlo term's expectation, over all orders in which frames may be drawn without replacement."""
    glances = weight_BG.shape[1]
    terms = []
    for count in range(glances // 3):
        term = torch.zeros(len(weight_BG), logits_BGK.shape[-1], dtype=torch.float64)
        for drawn in itertools.permutations(range(glances), count):
            left_BG, chance_B = weight_BG.double(), torch.ones(len(weight_BG), dtype=torch.float64)
            for glance in drawn:
                chance_B = chance_B * left_BG[:, glance] / left_BG.sum(1)
                left_BG = left_BG.clone()
                left_BG[:, glance] = 0
            seen_BK = torch.einsum("bg,bgk->bk", left_BG / left_BG.sum(1, keepdim=True), logits_BGK.double())
            term += chance_B[:, None] * seen_BK
        terms.append(term)
    return torch.stack(terms).mean(0)


@pytest.mark.parametrize("case", CLIPS)
@torch.no_grad()
def test_one_box_for_the_clip(case: dict, tmp_path: Path) -> None:
    model, wanted = model_of(case, tmp_path), case["eval"]
    glance_BTCHW, frames = clip_frames(case, 2)
    output = model(glance_BTCHW, frames)
    glance, choice = output.glance, output.choice
    assert choice.places_BF.tolist() == wanted["focus_indices"]
    action_BS4 = model.actions(glance)
    patches = model.crop_chosen(frames, choice)
    focus = model.focus(patches)
    weights = model.weights(glance)
    draws = sets_of(f"{case['video_seed']}/eval", 2, case["num_glance_segments"])
    cut = crop_map(glance.map_BTDhw, action_BS4, 224, 96, case["patch_size"])
    for name, found in {
        "weights": weights,
        "actions": action_BS4[:, 0],
        "patch_boxes": model.boxes_at(action_BS4, choice.places_BF)[:, 0],
        "patch_mean": patches.mean((2, 3, 4)),
        "patch_corners": corners_of(patches[:, 0]),
        "map_crop_mean": cut.mean((2, 3, 4)),
        "glance_main": model.clip_glance(glance)[:, 0],
        "glance_aux": glance.logits_BTK.mean(1),
        "glance_aux_frames": glance.logits_BTK,
        "focus_main": model.classifier.last(focus).mean(1),
        "focus_aux": model.focuser.head(focus).mean(1),
        "exits": output.logits_BTK,
        "prediction": output.prediction_BK,
        "spatial_logits": model.judged_map(glance, action_BS4),
        "temporal_logits_forced": expected_logits(glance.logits_BTK, weights, draws),
        "temporal_logits_expected": exact(glance.logits_BTK, weights),
    }.items():
        assert_near(found, wanted[name], 1e-4, name)


@pytest.mark.slow  # of networks of full size
@pytest.mark.parametrize("case", [*FRAMES, *CLIPS])
def test_losses_and_gradients(case: dict, tmp_path: Path) -> None:
    wanted, seed = case["train"], f"{case['video_seed']}/train"
    model, targets = model_of(case, tmp_path), torch.tensor(case["train"]["targets"])
    places = torch.tensor(wanted["focus_indices"])
    stage = Unified(model, override(model.config, {"unified.size_weight": wanted["part_weights"]["norm"]})).train()
    if model.acts_per_frame:
        focus = video(case["video_seed"], len(targets), case["num_segments"])
        glance = at_places(focus, torch.tensor(wanted["glance_indices"]))
        random = at_places(torch.tensor(wanted["random_actions_yx"]), places)
    else:
        glance, focus = clip_frames(case, len(targets))
        random = torch.tensor(wanted["random_action_yx"])[:, None]
    draws = sets_of(seed, len(targets), case["num_glance_segments"])
    quantiles = torch.tensor(wanted["quantile_draws"])
    collected = {"glance": glance, "focus": focus, "target": targets, "random": random}
    stage.__dict__["drawn_before"] = lambda weights, sets: sets
    seen = SpyOn(model)
    losses, _ = stage.losses({**collected, "quantiles": quantiles, "sets": draws})
    loss = sum(value * stage.weight(name) for name, value in losses.items())
    assert_near(loss, wanted["loss"], 5e-3, "loss")
    for name, value in wanted["parts"].items():
        assert_near(losses[PARTS[name]], value, 5e-3, name)
        assert stage.weight(PARTS[name]) == wanted["part_weights"][name]
    assert seen.places.tolist() == wanted["focus_indices"]
    assert_near(seen.weights, wanted["weights"], 5e-3, "weights")
    actions = seen.actions if model.acts_per_frame else seen.actions[:, 0]
    assert_near(actions, wanted["spatial_actions" if model.acts_per_frame else "policy_action"], 5e-3, "actions")
    check_running_statistics(model, wanted["bn_after"])
    tolerance = dict.fromkeys(wanted["grad_norm"], 5e-2)
    for name, groups in wanted["grad_norm_by_part"].items():
        check_gradients(model, losses[PARTS[name]], groups, tolerance)
    check_gradients(model, loss, wanted["grad_norm"], tolerance)


class SpyOn(SimpleNamespace):
    """Keeps what a model's policies said last."""

    def __init__(self, model: UniAdaFocus) -> None:
        super().__init__()
        model.policy.frames.register_forward_hook(lambda module, given, found: setattr(self, "weights", found))
        model.policy.boxes.register_forward_hook(lambda module, given, found: setattr(self, "actions", found))
        boxes_at = model.boxes_at

        def keeping(actions: Tensor, places: Tensor) -> Tensor:
            self.places = places
            return boxes_at(actions, places)

        model.__dict__["boxes_at"] = keeping


def clip_frames(case: dict, clips: int) -> tuple[Tensor, Tensor]:
    seed = case["video_seed"]
    glances = video(f"{seed}/glancer", clips, case["num_glance_segments"])
    return glances, video(f"{seed}/focuser", clips, case["num_input_focus_segments"])


@pytest.mark.parametrize("case", UNITS)
def test_frames_are_quantiles(case: dict) -> None:
    for row in case["index_sampling"]:
        weights, sizes = torch.tensor(row["weights"]), (row["num_segments"], row["num_focus_segments"])
        assert choose_places(weights, *sizes).tolist() == row["evaluation"]
        assert choose_places(weights, *sizes, torch.tensor(row["quantile_draws"])).tolist() == row["training"]


@pytest.mark.parametrize("case", UNITS)
def test_boxes_become_patches(case: dict) -> None:
    row = case["patches"]
    frames = video(row["image_seed"], 4, 1)[:, 0]
    boxes = boxes_of(torch.tensor(row["actions"]), 224, 96)
    assert_near(boxes, row["boxes_y_x_h_w"], 1e-4)
    patches = crop_resized(frames, boxes, row["patch_size"])
    assert_near(patches.mean((2, 3)), row["mean"], 1e-4)
    at = row["samples_at"]
    assert_near(patches[:, :, at][..., at], row["samples"], 1e-4)
    cells = case["map_crop"]
    map_4Dhw = noise(f"{case['seed']}/map", (4, 3, 7, 7)).abs()
    found = crop_map(map_4Dhw[None], torch.tensor(row["actions"])[None], 224, 96, cells["patch_size"])
    assert_near(found[0], cells["crop"], 1e-4)
    row = case["interpolation"]
    assert_near(actions_of_frames(torch.tensor(row["glance"])[None], len(row["frames"]))[0], row["frames"], 1e-4)


@pytest.mark.parametrize("case", UNITS)
def test_the_choice_of_frames_learns_from_an_expectation(case: dict) -> None:
    row = case["monte_carlo"]
    weights = torch.tensor(row["weights"], requires_grad=True)
    clips, glances = weights.shape
    logits = noise(f"{case['seed']}/mc_logits", (clips, glances, len(row["expected"][0])))
    assert row["samples"] == SAMPLES and row["terms"] == glances // 3
    found = expected_logits(logits, weights, sets_of(case["seed"], clips, glances))
    assert_near(found, row["forced_result"], 1e-4)
    loss = torch.nn.functional.cross_entropy(found, torch.tensor(row["loss_target"]))
    (gradient,) = torch.autograd.grad(loss, weights)
    assert_near(gradient, row["grad_weights"], 1e-4)
    assert_near(exact(logits, weights.detach()), row["expected"], 1e-4)
    # Of real draws the mean comes near: 20 * 128 of them scatter by a fiftieth.
    drawn = torch.rand(glances // 3, 20 * SAMPLES, clips, glances, generator=torch.Generator().manual_seed(0))
    assert_near(expected_logits(logits, weights, left_out(weights, drawn)), row["expected"], 4e-2)


@pytest.mark.parametrize("case", golden("uni_exit*.json") + golden("uni_sth_exit*.json"))
def test_early_exit(case: dict) -> None:
    exits = case["exits"]
    scale = torch.tensor(case["scale"]) if "scale" in case else torch.linspace(0.5, 3, exits)

    def logits_of(name: str, clips: int, classes: int) -> Tensor:
        return (noise(name, (exits, clips, classes)) * scale[:, None, None]).transpose(0, 1)

    train, val = logits_of(*case["train"]), logits_of(*case["val"])
    for row in case["cases"]:
        criterion: Criterion = row.get("criterion", "confidence")
        shares = exit_shares(row["p"], exits)
        assert_near(shares, row["probs"], 1e-4)
        thresholds = exit_thresholds(certainty(train, criterion), shares)
        found = choose_exits(certainty(val, criterion), thresholds)
        assert found.tolist() == row["chosen_exit"]
        costs = torch.tensor(case["cost_per_exit"], dtype=torch.float64)
        assert_near(costs[found].mean(), row["expected_cost"], 1e-4)


@pytest.mark.parametrize("layout", ["actnet", pytest.param("sth", marks=pytest.mark.slow)])
def test_names_are_those_of_the_released_files(layout: str, tmp_path: Path) -> None:
    recipe = find_recipe("activitynet-uni-128" if layout == "actnet" else "ssv1-uni-128-12")
    wanted = golden(f"layout_uni_{layout}.json")[0].values[0]
    config = override(recipe, NO_WEIGHTS)
    model = build_model(config, 10)
    reference_export.export_checkpoint(model, tmp_path / "ours.pth.tar", stage=UNI_ADAFOCUS.last)
    written = reference_checkpoints.read_checkpoint(tmp_path / "ours.pth.tar")["state_dict"]
    assert {name.removeprefix("module."): list(value.shape) for name, value in written.items()} == wanted
    again = reference_checkpoints.import_checkpoint(tmp_path / "ours.pth.tar", config).model
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert len(tensor_places(model)) + 4 * (layout == "actnet") == len(wanted)


def test_multiply_adds_are_the_published_ones() -> None:
    """The paper counts one multiply-add per channel of every normalisation layer too, of the classifier's per frame."""
    macs = golden("macs_v2*.json")[0].values[0]
    row = macs["uni_actnet"]
    resnet_norms, glance_norms = macs["resnet50_norm_channels"], macs["mobilenet_v2_224"]["norm_channels"]
    totals = row["total_by_number_of_focus_frames_0_to_16"]
    for patch, published in ((patch, totals[patch]) for patch in ("96", "160")):
        config = override(find_recipe("activitynet-uni-128"), {"model.patch_size": int(patch)})
        costs = multiply_adds.exit_costs(config, 200)
        before = 16 * (glance_norms + 4096)
        norms = [before, *(before + 3 * 128 + 2 * 64 + number * (resnet_norms + 4096) for number in range(1, 17))]
        found = [cost + extra / 1e9 for cost, extra in zip(costs, norms, strict=True)]
        assert found == pytest.approx([each / 1e9 for each in published], rel=1e-8)
    for sizes, published in macs["uni_sth"]["exits_by_patch_and_focus_frames"].items():
        patch, frames = map(int, sizes.split("/"))
        changes = {"model.patch_size": patch, "data.num_focus_frames": frames, "data.num_candidates": 3 * frames}
        costs = multiply_adds.exit_costs(override(find_recipe("ssv1-uni-128-12"), changes), 174)
        # Theirs applies both heads of both networks to every frame before the first exit needs the main one; ours the
        # main head of the glances to their mean, and no auxiliary head of the focuser.
        first = costs[0] + (8 * glance_norms + 8 * 1280 * 174) / 1e9
        policy_norms, heads = 3 * 128 + 2 * 64, frames * 2048 * 174 - 1280 * 174
        last = first + costs[1] - costs[0] + (policy_norms + frames * resnet_norms + heads) / 1e9
        assert [first, last] == pytest.approx([each / 1e9 for each in published], rel=1e-8)
