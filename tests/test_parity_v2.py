"""AdaFocusV2 against numbers of the authors' code. Tolerances are those that tests/golden/README.md gives for each
field: relative to its largest magnitude."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.data.sampling import spread_order
from adafocus.evaluation import multiply_adds
from adafocus.interop import reference_checkpoints, reference_export
from adafocus.methods import build_model
from adafocus.methods.adafocus_v2 import ADAFOCUS_V2
from adafocus.models.adafocus_v2 import AdaFocusV2
from adafocus.stages.joint import Joint
from helpers.reference import NO_WEIGHTS, assert_near, golden, video
from helpers.second_layout import check_gradients, check_running_statistics, fix_batch_norms, imported
from pipelines.recipes import find_recipe
from preprocessing.schema import UserError

pytestmark = pytest.mark.usefixtures("each_device")
LARGE = {"v2_actnet_full", "v2_actnet_res50"}
"""Files of full size: `make test-slow`."""
FRAMES = golden("v2_actnet*.json", slow=LARGE)
CLIPS = golden("v2_sth*.json")
QUICK = "v2_actnet"
"""Of the files of training, the one that takes a few seconds."""
TRAINING = [
    pytest.param(*case.values, id=case.id, marks=[pytest.mark.slow] * (case.id != QUICK))
    for case in (*FRAMES, *CLIPS)
    if "train" in case.values[0]
]
PARTS = {
    "policy_cat": "policy_loss",
    "policy_global": "policy_glancer_loss",
    "policy_local": "policy_focuser_loss",
    "random_cat": "random_loss",
    "random_global": "random_glancer_loss",
    "random_local": "random_focuser_loss",
    "random_final": "random_loss",
    "random_glance_aux": "random_glancer_loss",
    "random_focus_aux": "random_focuser_loss",
    "policy_final": "policy_loss",
    "policy_glance_aux": "policy_glancer_loss",
    "policy_focus_aux": "policy_focuser_loss",
}
"""Their names of the six losses, of both kinds, and ours."""
NO_DROPOUT = {"model.dropout": 0.0, "model.head_dropout": 0.0}


def per_frame_config(case: dict) -> Config:
    frames, is_resnet = case["num_segments"], case["glance_arch"] == "res50"
    recipe = find_recipe("activitynet-v2-r50-128" if is_resnet else "activitynet-v2-128")
    sizes = {"data.num_frames": frames, "data.num_focus_frames": frames, "model.patch_size": case["patch_size"]}
    return override(recipe, {**sizes, "model.policy_hidden": case["stn_hidden_dim"], **NO_WEIGHTS, **NO_DROPOUT})


def per_clip_config(case: dict) -> Config:
    sizes = {"data.num_frames": case["glance_frames"], "data.num_focus_frames": case["focus_frames"]}
    sizes["model.patch_size"] = case["patch_size"]
    return override(find_recipe("ssv1-v2-144"), {**sizes, **NO_WEIGHTS, **NO_DROPOUT})


def model_of(config: Config, num_classes: int, folder: Path) -> AdaFocusV2:
    model = imported(config, num_classes, folder)
    assert isinstance(model, AdaFocusV2)
    return model


@pytest.mark.parametrize("case", FRAMES)
@torch.no_grad()
def test_a_position_for_every_frame(case: dict, tmp_path: Path) -> None:
    model = model_of(per_frame_config(case), case["num_classes"], tmp_path)
    natural = video(case["video_seed"], 2, case["num_segments"])
    passes = [(natural, case if "actions" in case else case["natural"])]
    if "reordered" in case:
        assert spread_order(case["num_segments"]).tolist() == case["input_order"]
        passes.append((natural[:, case["input_order"]], case["reordered"]))
    for frames, wanted in passes:
        output = model(frames, frames)
        assert_near(output.choice.action, wanted["actions"], 1e-4)
        assert_near(output.logits_BTK, wanted["logits"], 1e-4)
        assert_near(output.prediction_BK, wanted["prediction"], 1e-4)
        if "global_logits" in wanted:
            assert_near(output.glance.logits_BTK, wanted["global_logits"], 1e-4)
            focus_BTD = model.focus(model.crop(frames, output.choice.corners_BS2))
            assert_near(model.focuser.head(focus_BTD), wanted["local_logits"], 1e-4)


@pytest.mark.parametrize("case", CLIPS)
@torch.no_grad()
def test_a_position_for_the_clip(case: dict, tmp_path: Path) -> None:
    model = model_of(per_clip_config(case), case["num_classes"], tmp_path)
    glance_BTCHW, focus_BTCHW = clip_frames(case, 2)
    output = model(glance_BTCHW, focus_BTCHW)
    side = case["patch_size"] - 1
    patches_BTCPP = model.crop(focus_BTCHW, output.choice.corners_BS2)
    corners = [patches_BTCPP[:, 0, :, row, column] for row in (0, side) for column in (0, side)]
    focus_BTD = model.focus(patches_BTCPP)
    main_BTK = model.classifier.glance(output.glance.feature_BTD)
    for name, found in {
        "actions": output.choice.action[:, 0],
        "patch_mean": patches_BTCPP.mean((2, 3, 4)),
        "patch_std": patches_BTCPP.flatten(2).std(2, correction=0),
        "patch_corners": torch.stack(corners, -1),
        "glance_map_mean": output.glance.map_BTDhw.mean((2, 3, 4)),
        "glance_map_std": output.glance.map_BTDhw.flatten(2).std(2, correction=0),
        "focus_feature_mean": focus_BTD.mean(-1),
        "glance_main_frames": main_BTK,
        "glance_main": model.clip_glance(output.glance)[:, 0],
        "glance_aux": output.glance.logits_BTK.mean(1),
        "focus_main": model.classifier.last(focus_BTD).mean(1),
        "focus_aux": model.focuser.head(focus_BTD).mean(1),
        "prediction": output.prediction_BK,
    }.items():
        assert_near(found, case[name], 1e-4, name)


@pytest.mark.parametrize("case", TRAINING)
def test_losses_and_gradients_with_fixed_batch_norms(case: dict, tmp_path: Path) -> None:
    wanted = case["train"] if "train_fixed_norm" not in case else case["train_fixed_norm"]
    stage, collected = training(case, wanted, tmp_path)
    fix_batch_norms(stage)
    losses, _ = stage.losses(collected)
    assert_near(sum(losses.values()) / 2, wanted["loss"], 1e-4)
    for name, value in wanted.get("parts", {}).items():
        assert_near(losses[PARTS[name]], value, 1e-4, name)
    for name, groups in wanted.get("grad_norm_by_part", {}).items():
        check_gradients(stage.model, losses[PARTS[name]], groups, dict.fromkeys(groups, 1e-2))
    check_gradients(
        stage.model, sum(losses.values()) / 2, wanted["grad_norm"], dict.fromkeys(wanted["grad_norm"], 1e-2)
    )


@pytest.mark.parametrize("case", [case for case in TRAINING if "train_fixed_norm" in case.values[0]])
def test_losses_and_gradients_with_batch_statistics(case: dict, tmp_path: Path) -> None:
    wanted = case["train"]
    stage, collected = training(case, wanted, tmp_path)
    losses, _ = stage.losses(collected)
    for name, value in wanted["parts"].items():
        assert_near(losses[PARTS[name]], value, 1e-2 if name.startswith("policy") else 5e-3, name)
    check_running_statistics(stage.model, wanted["bn_after"])
    # That of the policy is ill-conditioned here: a fifth depends on the number of threads.
    tolerance = {name: 9.0 if "policy" in name else 5e-2 for name in wanted["grad_norm"]}
    for name, groups in wanted["grad_norm_by_part"].items():
        check_gradients(stage.model, losses[PARTS[name]], groups, tolerance)
    check_gradients(stage.model, sum(losses.values()) / 2, wanted["grad_norm"], tolerance)


@pytest.mark.parametrize("case", golden("v2_input_order*.json"))
def test_the_order_of_frames(case: dict) -> None:
    orders = {int(frames): order for frames, order in case["order"].items()}
    for frames in orders.keys() - {1, 2}:  # the reference yields three entries for fewer than three
        own, theirs = spread_order(frames).tolist(), orders[frames]
        # In gaps of two frames theirs takes now and then the later one first: for 20, 22, 28 and 30 frames once each.
        assert sum(a != b for a, b in zip(own, theirs, strict=True)) <= (2 if frames in (20, 22, 28, 30) else 0)
    assert [spread_order(frames).tolist() for frames in (1, 2)] == [[0], [0, 1]]


@pytest.mark.parametrize(
    "layout", ["actnet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("actnet_res50", "sth"))]
)
def test_names_are_those_of_the_released_files(layout: str, tmp_path: Path) -> None:
    recipes = {"actnet": "activitynet-v2-128", "actnet_res50": "activitynet-v2-r50-128", "sth": "ssv1-v2-144"}
    wanted = golden(f"layout_v2_{layout}.json")[0].values[0]
    changes = dict(NO_WEIGHTS)
    if layout != "sth":
        frames = 1 + max(int(name.split(".")[2]) for name in wanted if name.startswith("classifier.classifiers."))
        width = wanted["policy_stn.fc.0.weight"][1]
        changes |= {"data.num_frames": frames, "data.num_focus_frames": frames, "model.policy_hidden": width}
    config = override(find_recipe(recipes[layout]), changes)
    model = build_model(config, 10)
    reference_export.export_checkpoint(model, tmp_path / "ours.pth.tar", stage="joint")
    written = reference_checkpoints.read_checkpoint(tmp_path / "ours.pth.tar")["state_dict"]
    assert {name.removeprefix("module."): list(value.shape) for name, value in written.items()} == wanted
    again = reference_checkpoints.import_checkpoint(tmp_path / "ours.pth.tar", config).model
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    written.pop("module.policy_stn.10.bias" if layout == "sth" else "module.policy_stn.gru.bias_hh_l0")
    torch.save({"state_dict": written}, tmp_path / "cut.pth.tar")
    with pytest.raises(UserError, match="missing: policy_stn"):
        reference_checkpoints.import_checkpoint(tmp_path / "cut.pth.tar", config)


def test_multiply_adds_are_the_published_ones() -> None:
    """The paper counts the auxiliary layers, one multiply-add per channel of every normalisation layer, and 2 more."""
    macs = golden("macs_v2*.json")[0].values[0]
    row, resnet_norms = macs["v2_actnet"], macs["resnet50_norm_channels"]
    glance_norms = {"mbv2": macs["mobilenet_v2_224"]["norm_channels"], "res50": resnet_norms}
    for kind, recipe in (("mbv2", "activitynet-v2-128"), ("res50", "activitynet-v2-r50-128")):
        for patch, published in row[f"per_frame_{kind}_total"].items():
            counts = multiply_adds.count(override(find_recipe(recipe), {"model.patch_size": int(patch)}), 200)
            assert counts["policy"] / 16 == pytest.approx(row[f"policy_per_frame_{kind}"] / 1e9)
            assert counts["classifier"] / 16 == pytest.approx(row[f"classifier_per_frame_{kind}"] / 1e9)
            glance_norms = (
                macs["mobilenet_v2_224"]["norm_channels"] if kind == "mbv2" else macs["resnet50_norm_channels"]
            )
            norms = glance_norms + macs["resnet50_norm_channels"]
            norms += row["policy_norm_channels"] + row["classifier_norm_channels"]
            extra = row[f"auxiliary_heads_per_frame_{kind}"] + norms + row["constant"]
            assert counts["total"] / 16 + extra / 1e9 == pytest.approx(published / 1e9, rel=1e-8)
    for patch, published in macs["v2_sth"]["total"].items():
        counts = multiply_adds.count(override(find_recipe("ssv1-v2-144"), {"model.patch_size": int(patch)}), 174)
        assert counts["policy"] == pytest.approx(macs["v2_sth"]["policy"] / 1e9)
        heads = 1280 * 174 * 7 / 1e9  # theirs is applied to every glance, ours to their mean
        assert counts["total"] + heads == pytest.approx(published["one_head_per_network"] / 1e9, rel=1e-8)


def clip_frames(case: dict, clips: int) -> tuple[Tensor, Tensor]:
    seed = case["video_seed"]
    return video(f"{seed}/glancer", clips, case["glance_frames"]), video(f"{seed}/focuser", clips, case["focus_frames"])


def training(case: dict, wanted: dict, folder: Path) -> tuple[Joint, dict]:
    """A joint stage in training, and what it would have collected of the case's clips."""
    clips = len(wanted["targets"])
    if "num_segments" in case:
        config = per_frame_config(case)
        glance_BTCHW = focus_BTCHW = video(case["video_seed"], clips, case["num_segments"])
        random_BS2 = torch.tensor(wanted["random_actions"])
    else:
        config = per_clip_config(case)
        glance_BTCHW, focus_BTCHW = clip_frames(case, clips)
        random_BS2 = torch.tensor(wanted["random_action"])[:, None]
    model = model_of(config, case["num_classes"], folder)
    stage = ADAFOCUS_V2.stage("joint")(model, config).train()
    assert isinstance(stage, Joint)
    target = torch.tensor(wanted["targets"])
    return stage, {"glance": glance_BTCHW, "focus": focus_BTCHW, "target": target, "random": random_BS2}
