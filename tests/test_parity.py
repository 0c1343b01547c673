"""Our arithmetic against numbers of the reference implementation: see tests/golden/README.md for the rule of weights.

ADAFOCUS_GOLDEN_DIR names another folder with files of the same patterns.
"""

from __future__ import annotations

import math
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from adafocus.config.overrides import override
from adafocus.config.schema import Config, ModelConfig, PPOConfig
from adafocus.evaluation import metrics
from adafocus.interop import reference_checkpoints, reference_export, reference_names
from adafocus.methods import build_model
from adafocus.models.adafocus import AdaFocus
from adafocus.models.crop import scale_corners
from adafocus.models.policies.policy import Policy
from adafocus.stages import reinforcement
from helpers.reference import NO_WEIGHTS, RELATIVE, assert_close, by_rule, golden, noise, video
from pipelines.recipes import Recipe
from pipelines.recipes.something_something import ssv1_144
from pipelines.recipes.untrimmed import activitynet_128
from preprocessing.frame_choice import evaluation_frames

pytestmark = pytest.mark.usefixtures("each_device")


def imported(config: Config, num_classes: int, folder: Path) -> AdaFocus:
    """A model whose weights came by the rule, through a file in the reference's layout and the import path."""
    shapes = build_model(config, num_classes)
    tables: dict[str, dict[str, Tensor]] = {}
    for part, theirs in reference_names.THEIR_PART.items():
        state = shapes.get_submodule(part).state_dict()
        names = reference_names.theirs(shapes, part)
        tables[theirs] = {name: by_rule(f"{theirs}.{name}", tuple(state[ours].shape)) for name, ours in names.items()}
    if not config.model.temporal_shift:
        copies = {
            f"{prefix}{name}": x for prefix in reference_names.POLICY_COPIES for name, x in tables["policy"].items()
        }
        tables["focuser"] |= copies
    torch.save({"epoch": 3, "acc": np.float64(1.5), **tables}, folder / "model.pth.tar")
    return reference_checkpoints.import_checkpoint(folder / "model.pth.tar", config).model.eval()


def untrimmed_config(case: dict) -> Config:
    frames = case["num_segments"]
    changes = {"data.num_frames": frames, "data.num_focus_frames": frames, "model.patch_size": case["patch_size"]}
    grid = {"model.grid_size": math.isqrt(case.get("action_dim", 49))}
    return override(Config(), {**changes, **grid, **NO_WEIGHTS})


@pytest.mark.parametrize("case", golden("actnet_forward*.json"))
@torch.no_grad()
def test_untrimmed_forward(case: dict, tmp_path: Path) -> None:
    model = imported(untrimmed_config(case), case["num_classes"], tmp_path)
    frames = video(case["video_seed"], 2, case["num_segments"])
    output = model(frames, frames)
    assert output.choice.action.tolist() == case["actions"]
    assert_close(output.glance.feature_BTD.mean(-1), case["glance_feature_mean"])
    assert_close(output.glance.map_BTDhw.flatten(2).std(-1), case["glance_map_std"])
    assert_close(output.logits_BTK, case["logits"])
    assert_close(output.prediction_BK, case["prediction"])


@pytest.mark.parametrize("case", golden("sth_forward*.json"))
@torch.no_grad()
def test_trimmed_forward(case: dict, tmp_path: Path) -> None:
    frames = (case["num_segments_glancer"], case["num_segments_focuser"])
    changes = dict(zip(("data.num_frames", "data.num_focus_frames"), frames, strict=True))
    config = override(ssv1_144(), {**NO_WEIGHTS, **changes, "model.patch_size": case["patch_size"]})
    model = imported(config, case["num_classes"], tmp_path)
    output = model(
        video(f"{case['video_seed']}/glancer", 2, frames[0]), video(f"{case['video_seed']}/focuser", 2, frames[1])
    )
    assert_close(output.choice.action, case["actions"])
    assert_close(output.glance.logits_BTK, case["glance_logits"])
    assert_close(output.prediction_BK, case["prediction"])


@pytest.mark.parametrize("case", golden("actnet_reward*.json"))
@torch.no_grad()
def test_rewards(case: dict, tmp_path: Path) -> None:
    config = untrimmed_config(case)
    model = imported(config, case["num_classes"], tmp_path)
    actions_BT = torch.tensor(case["actions"]).t()
    frames = video(case["video_seed"], *actions_BT.shape)
    glance = model.glance(frames)
    corners = model.policy.corners(actions_BT, config.data.crop)
    position = torch.tensor(case["baseline_position"]).expand(*actions_BT.shape, 2)
    others = scale_corners(position, config.data.crop, config.model.patch_size)
    taken, other = (model.focus(model.crop(frames, where)) for where in (corners, others))
    reached = model.decisions(model.classify(glance, taken))
    baseline = model.counterfactual(glance, taken, other)
    targets = torch.tensor(case["targets"])
    assert_close(reinforcement.confidence(reached, targets).t(), case["confidence"])
    assert_close(reinforcement.confidence(baseline, targets).t(), case["baseline_confidence"])
    largest = max(map(max, case["confidence"]))
    assert_close(reinforcement.rewards("random", reached, targets, baseline).t(), case["reward"], largest)


@pytest.mark.parametrize("case", [*golden("ppo_discrete*.json"), *golden("ppo_continuous*.json")])
def test_ppo_updates(case: dict) -> None:
    steps, batch, width = case["T"], case["B"], case["feature_dim"]
    grid = case["action_dim"] > 2
    config = ModelConfig(
        action="grid" if grid else "gaussian",
        grid_size=math.isqrt(case["action_dim"]) if grid else 7,
        policy_channels=32 if grid else 64,
    )
    policy = Policy(config, width, (7, 7))
    names = {ours: reference_names.LAYOUTS["plain"]["policy"](ours) for ours in policy.state_dict()}
    policy.load_state_dict({o: by_rule(f"policy.{t}", tuple(policy.state_dict()[o].shape)) for o, t in names.items()})
    states = noise(f"{case['seed']}/states", (steps, batch, width, 7, 7)).abs().transpose(0, 1)
    random = np.random.RandomState(zlib.crc32(f"{case['seed']}/actions".encode()))
    drawn = random.randint(0, case["action_dim"], (steps, batch)) if grid else random.uniform(0, 1, (steps, batch, 2))
    actions = torch.tensor(drawn if grid else drawn.astype(np.float32)).transpose(0, 1)
    rewards = 0.3 * noise(f"{case['seed']}/rewards", (steps, batch)).t()
    returns = reinforcement.normalise_returns(reinforcement.discounted_returns(rewards, case["gamma"]))
    settings = PPOConfig(
        clip=case["clip"], value_coef=case["value_coef"], entropy_coef=case["entropy_coef"], lr=case["lr"]
    )
    optimizer = torch.optim.Adam(policy.parameters(), lr=settings.lr)

    def look() -> dict[str, Tensor]:
        output = policy(states)
        return {
            "logprob": output.actions.log_prob(actions),
            "value": output.value_BS,
            "entropy": output.actions.entropy(),
        }

    before = {name: value.detach() for name, value in look().items()}
    for name, value in before.items():
        assert_close(value.t(), case[name])
    for number, after in enumerate(case["after"]):
        now = look()
        loss, logs = reinforcement.ppo_loss(
            settings,
            log_prob_BS=now["logprob"],
            behaviour_BS=before["logprob"],
            value_BS=now["value"],
            returns_BS=returns,
            entropy_BS=now["entropy"],
        )
        assert (number == 0) == (abs(logs["ratio"].item() - 1) < 1e-7)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for name, value in look().items():
            assert_close(value.detach().t(), after[name])
        for ours, parameter in policy.named_parameters():
            found, wanted = parameter.detach().double().sum(), after["param_sum"][names[ours]]
            # Adam makes a whole step out of a gradient that is a rounding error: some elements may differ by one.
            assert found.item() == pytest.approx(wanted, rel=RELATIVE, abs=4 * case["lr"]), ours


@pytest.mark.parametrize("case", golden("eval_indices*.json"))
def test_evaluation_indices(case: dict) -> None:
    for count, rows in case["untrimmed"].items():
        for num_frames, indices in rows.items():
            assert (evaluation_frames(int(num_frames), int(count)) + 1).tolist() == indices
    for name, rows in case.items():
        match = re.fullmatch(r"sth_glancer(\d+)_focuser(\d+)", name)
        for num_frames, both in rows.items() if match else ():
            for count, indices in zip(match.groups(), both, strict=True):
                assert (evaluation_frames(int(num_frames), int(count), "first") + 1).tolist() == indices


@pytest.mark.parametrize("case", golden("metrics*.json"))
def test_metrics(case: dict) -> None:
    for row in case["cases"]:
        logits = noise(row["name"], (row["N"], row["C"]))
        labels = torch.tensor(row["targets"])
        assert metrics.reference_map(logits, labels) == pytest.approx(row["mAP"], rel=1e-4)
        assert_close(metrics.reference_precision(logits, labels), row["AP"])
        assert metrics.topk_accuracy(logits, labels, 1) == pytest.approx(row["top1"], rel=1e-4)
        assert metrics.topk_accuracy(logits, labels, 5) == pytest.approx(row["top5"], rel=1e-4)


@pytest.mark.parametrize(("layout", "recipe"), [("actnet", activitynet_128), ("sth", ssv1_144)])
def test_names_are_those_of_the_released_files(layout: str, recipe: Recipe, tmp_path: Path) -> None:
    model = build_model(override(recipe(), NO_WEIGHTS), 10)
    reference_export.export_checkpoint(model, tmp_path / "ours.pth.tar")
    written = reference_checkpoints.read_checkpoint(tmp_path / "ours.pth.tar")
    wanted = golden(f"layout_{layout}.json")[0].values[0]
    for part, shapes in wanted.items():
        assert {name: list(value.shape) for name, value in written[part].items()} == shapes
