"""Stages: what learns, what a step computes, and that a stopped run ends with the same bits as an uninterrupted one."""

from __future__ import annotations

import copy
import json
import math
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from adafocus import checkpoint
from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.data.loader import ClipLoader
from adafocus.divergence import DivergedError
from adafocus.methods import build_model
from adafocus.methods.adafocus import ADAFOCUS
from adafocus.models.crop import patch_covers
from adafocus.stages.stage import prefix_loss
from adafocus.training.loss_watch import NonFiniteLossError
from adafocus.training.reports import EpochReport, Options
from adafocus.training.stage_runner import needed_stages, run_stage
from adafocus.training.update import Updater
from helpers.tiny import PER_CLIP, STAGES
from preprocessing.schema import METADATA_KEY, UserError
from preprocessing.shards.index import INDEX, read_index, stored_metadata
from preprocessing.shards.storage import Store


def first_batch(config: Config, shards: str):
    loader = ClipLoader(shards, "train", config.data, batch_size=8, train=True)
    return next(iter(loader))


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("frozen", [True, False])
def test_a_step_changes_only_what_the_stage_trains(
    name: str, frozen: bool, tiny_config: Config, synthetic_shards: str
) -> None:
    if name != "ppo":
        tiny_config = override(tiny_config, {f"{name}.backbone_lr": 0 if frozen else 1e-3})
    learning = ADAFOCUS.stage(name).trains
    if frozen and name in ("warmup", "finetune"):
        learning = ("classifier",)
    torch.manual_seed(0)
    model = build_model(tiny_config, 10)
    stage = ADAFOCUS.stage(name)(model, tiny_config)
    before = copy.deepcopy(model.state_dict())
    optimizer = stage.optimizer()
    stage.train()
    with torch.no_grad():
        collected = stage.collect(first_batch(tiny_config, synthetic_shards))
    loss, _ = stage(collected)
    loss.backward()
    optimizer.step()
    changed = {key for key, value in model.state_dict().items() if not value.equal(before[key])}
    assert {key.split(".")[0] for key in changed} == set(learning)
    if name == "pretrain" and frozen:
        assert {key.split(".")[1] for key in changed} == {"last"}
    for part, module in model.named_children():
        assert module.training == (part in learning)


def test_ratio_is_one_in_the_first_pass(tiny_config: Config, synthetic_shards: str) -> None:
    config = override(tiny_config, {"ppo.update_epochs": 3, "ppo.lr": 0.01})
    stage = ADAFOCUS.stage("ppo")(build_model(config, 10), config)
    optimizer = stage.optimizer()
    stage.train()
    with torch.no_grad():
        collected = stage.collect(first_batch(config, synthetic_shards))
    ratios = []
    for _ in range(stage.updates_per_batch):
        loss, logs = stage(collected)
        ratios.append((logs["ratio"].item(), logs["approx_kl"].item()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert ratios[0] == pytest.approx((1.0, 0.0), abs=1e-6)
    assert ratios[2][1] > 1e-6, "later passes move away from the policy that acted"


@pytest.mark.parametrize("reward", ["random", "previous", "confidence", "padding"])
def test_every_reward_makes_a_rollout(reward: str, tiny_config: Config, synthetic_shards: str) -> None:
    config = override(tiny_config, {"ppo.reward": reward})
    stage = ADAFOCUS.stage("ppo")(build_model(config, 10).eval(), config)
    with torch.no_grad():
        collected = stage.collect(first_batch(config, synthetic_shards))
    stage.prepare([collected])
    assert collected["rewards"].shape == (8, 4)
    assert collected["returns"].mean().abs() < 1e-5 and collected["returns"].std() == pytest.approx(1, abs=0.05)
    assert collected["rewards"].min() >= (0 if reward == "confidence" else -1)


@pytest.mark.parametrize("per_clip", [False, True])
def test_boxes_of_objects_can_teach_the_policy(per_clip: bool, tiny_config: Config, synthetic_shards: str) -> None:
    """What is added is the share of the box that the drawn patch holds, of one patch a clip the mean over frames; a
    frame without the object adds nothing."""
    config = override(tiny_config, {"ppo.box_reward": 2.0, **(PER_CLIP if per_clip else {})})
    model = build_model(config, 10).eval()
    batch = first_batch(config, synthetic_shards)
    batch.boxes_BT4[0] = torch.nan
    batch.boxes_BT4[1, 0] = torch.nan
    rollouts = []
    for each in (config, override(config, {"ppo.box_reward": 0})):
        stage = ADAFOCUS.stage("ppo")(model, each)
        stage.draws.manual_seed(1)
        with torch.no_grad():
            rollouts.append(stage.collect(batch))
    assert rollouts[0]["action"].equal(rollouts[1]["action"])
    added_BS = rollouts[0]["rewards"] - rollouts[1]["rewards"]
    corners_BS2 = model.policy.corners(rollouts[0]["action"], config.data.crop)
    covers_BT = patch_covers(corners_BS2, config.model.patch_size, batch.boxes_BT4)
    expected_BS = covers_BT.nanmean(1, keepdim=True) if per_clip else covers_BT
    assert added_BS.allclose(2 * expected_BS.nan_to_num(), atol=1e-6) and added_BS[0].eq(0).all() and added_BS.max() > 0


def test_a_reward_for_boxes_needs_boxes(tiny_config: Config, synthetic_shards: str) -> None:
    config = override(tiny_config, {"ppo.box_reward": 1.0})
    stage = ADAFOCUS.stage("ppo")(build_model(config, 10).eval(), config)
    batch = replace(first_batch(config, synthetic_shards), boxes_BT4=None)
    with torch.no_grad(), pytest.raises(UserError, match=r"give the data set a boxes.csv, or set ppo.box_reward=0"):
        stage.collect(batch)


def test_boxes_that_are_lacking_are_said_before_the_first_stage(
    tiny_config: Config, synthetic_shards: str, tmp_path: Path
) -> None:
    """And an index of an earlier version, which does not name its boxes, has them."""
    table = read_index(Store(synthetic_shards)).table
    told = stored_metadata(table.schema)
    told.pop("boxes")
    table = table.replace_schema_metadata({METADATA_KEY: json.dumps(told)})
    place, column = table.schema.get_field_index("boxes"), table.schema.field("boxes")
    none = table.set_column(place, column, pa.nulls(len(table), column.type))
    for name, rows in (("old", table), ("none", none)):
        (tmp_path / name).mkdir()
        pq.write_table(rows, tmp_path / name / INDEX)
    config = override(tiny_config, {"ppo.box_reward": 1.0})
    needed = partial(needed_stages, STAGES, runs=tmp_path / "runs")
    assert needed(config, shards=synthetic_shards) == needed(config, shards=str(tmp_path / "old")) == STAGES
    assert needed(tiny_config, shards=str(tmp_path / "none")) == STAGES
    with pytest.raises(UserError, match=r"no clip of .*none has one: give the data set a boxes.csv"):
        needed(config, shards=str(tmp_path / "none"))
    assert needed_stages(STAGES[:2], config, shards=str(tmp_path / "none"), runs=tmp_path / "runs") == STAGES[:2]


def train(name: str, config: Config, shards: str, runs: Path, **options: object) -> tuple[Path, list[EpochReport]]:
    reports: list[EpochReport] = []
    folder = run_stage(
        name, config, shards=shards, runs=runs, options=Options(device="cpu", **options), report=reports.append
    )
    return folder, reports


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*.safetensors")))


def same(a: Path, b: Path) -> bool:
    left, right = weights(a), weights(b)
    return left.keys() == right.keys() and all(value.equal(right[key]) for key, value in left.items())


class StoppedError(Exception):
    pass


SMALL = {"data.crop": 16, "data.resize": 16, "model.glance_size": 16, "model.patch_size": 8}
"""For fp16, which a CPU computes slowly."""
HARD = {
    **PER_CLIP,
    **SMALL,
    "data.num_frames": 2,
    "data.num_focus_frames": 2,
    "ppo.update_epochs": 2,
    **{f"{name}.{key}": value for name in STAGES for key, value in (("accumulate", 2), ("precision", "fp16"))},
    "ppo.precision": "bf16",
    **{f"{name}.clip_grad_norm": 1.0 for name in STAGES},
    **{f"{name}.optimizer": "sgd" for name in STAGES if name != "ppo"},
}
"""All that a state has to hold: momentum, a scaler, the policy's batch norms, several passes and micro-batches."""

Whole = tuple[Config, dict[str, tuple[Path, list[EpochReport]]]]


@pytest.fixture(scope="module", params=["frame", pytest.param("clip", marks=pytest.mark.slow)])
def whole(
    request: pytest.FixtureRequest, tiny_config: Config, synthetic_shards: str, tmp_path_factory: pytest.TempPathFactory
) -> Whole:
    """A configuration, and what an uninterrupted run makes of it: three steps an epoch, two epochs a stage."""
    config = override(tiny_config, HARD if request.param == "clip" else {"ppo.update_epochs": 2})
    runs = tmp_path_factory.mktemp("whole")
    finished = {name: train(name, config, synthetic_shards, runs) for name in STAGES}
    if request.param == "clip":  # a scaler begins by leaving steps out
        assert all(math.isfinite(reports[-1].metrics[f"{name}/grad_norm"]) for name, (_, reports) in finished.items())
    return config, finished


@pytest.mark.parametrize(
    ("name", "stop_after"), [("pretrain", 1), ("pretrain", 5), ("warmup", 4), ("ppo", 2), ("ppo", 4), ("finetune", 4)]
)
def test_a_stopped_run_ends_with_the_same_bits(
    name: str,
    stop_after: int,
    whole: Whole,
    synthetic_shards: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A state is saved after every step, and nothing else outlives the stop."""
    config, finished = whole
    for earlier in STAGES[: STAGES.index(name)]:
        folder = finished[earlier][0]
        shutil.copytree(folder, tmp_path / folder.name)
    steps = 0
    original = Updater.step

    def stop(self: Updater, *args: object) -> object:
        nonlocal steps
        steps += 1
        if steps > stop_after:
            raise StoppedError
        return original(self, *args)

    monkeypatch.setattr(Updater, "step", stop)
    with pytest.raises(StoppedError):
        train(name, config, synthetic_shards, tmp_path, save_every_s=0)
    monkeypatch.setattr(Updater, "step", original)
    resumed, reports = train(name, config, synthetic_shards, tmp_path, save_every_s=0)
    folder, expected = finished[name]
    assert same(folder, resumed)
    for left, right in zip(expected, reports, strict=True):
        for key, value in left.metrics.items():
            assert key.endswith("seconds") or right.metrics[key] == pytest.approx(value, rel=1e-6, nan_ok=True), key


def test_all_stages_run_and_are_found_again(tiny_config: Config, synthetic_shards: str, tmp_path: Path) -> None:
    clock = 0
    for name in STAGES:
        folder, reports = train(name, tiny_config, synthetic_shards, tmp_path)
        assert [report.clock for report in reports] == [clock + 1, clock + 2]
        clock += 2
        written = next(folder.glob("*.safetensors")).stat().st_mtime_ns
        again, replayed = train(name, tiny_config, synthetic_shards, tmp_path)
        assert again == folder and replayed == reports
        assert next(folder.glob("*.safetensors")).stat().st_mtime_ns == written
        assert not list(tmp_path.glob("*.partial"))
    _, meta = checkpoint.load_model(folder)
    assert meta.stage == "finetune" and meta.metrics["finetune/val_top1"] >= 0
    assert "finetune/val_hit_rate" in meta.metrics


def test_a_stage_needs_the_one_before_it(tiny_config: Config, synthetic_shards: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pretrain-.* is missing: stage warmup starts from it"):
        train("warmup", tiny_config, synthetic_shards, tmp_path)


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_loss_that_is_not_finite_names_its_clips(
    precision: str, tiny_config: Config, synthetic_shards: str, tmp_path: Path
) -> None:
    """Fp16's scaler leaves out steps whose gradients overflow, but not a loss that does."""
    rates = {"pretrain.head_lr": 1e30, "pretrain.backbone_lr": 1e30}
    broken = override(tiny_config, {**rates, **SMALL, "pretrain.precision": precision})
    with pytest.raises(NonFiniteLossError, match=r"on the batch of clips train/000\d\d, train/"):
        train("pretrain", broken, synthetic_shards, tmp_path)


@pytest.mark.parametrize("rate", [1e30, 1e38])
@pytest.mark.parametrize("name", ["pretrain", "warmup"])
def test_a_model_that_the_last_step_destroyed_is_not_committed(
    name: str, rate: float, tiny_config: Config, synthetic_shards: str, tmp_path: Path
) -> None:
    """One step, after which no loss is computed: predictions and weights tell."""
    config = override(tiny_config, {"pretrain.epochs": 1, f"{name}.epochs": 1, f"{name}.batch_size": 24})
    if name != "pretrain":
        train("pretrain", config, synthetic_shards, tmp_path)
    sgd = {"optimizer": "sgd", "head_lr": rate, "backbone_lr": rate}
    config = override(config, {f"{name}.{key}": value for key, value in sgd.items()})
    with pytest.raises(DivergedError, match=r"logits are NaN or infinite on 10 of 10 clips: val/0000\d, .* and 2 more"):
        train(name, config, synthetic_shards, tmp_path)
    assert not list(tmp_path.glob(f"{name}-*/meta.json"))


def test_weights_that_are_not_finite_are_not_committed(
    tiny_config: Config, synthetic_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where predictions do not show it: the policy has no say in pretraining's."""
    original = Updater.step

    def spoil(self: Updater, *args: object) -> object:
        with torch.no_grad():
            self.stage.model.policy.actor.bias[0] = math.nan
        return original(self, *args)

    monkeypatch.setattr(Updater, "step", spoil)
    with pytest.raises(DivergedError, match="weights are NaN or infinite after the last epoch of stage pretrain"):
        train("pretrain", tiny_config, synthetic_shards, tmp_path)
    assert not list(tmp_path.glob("pretrain-*/meta.json"))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_trains(precision: str, tiny_config: Config, synthetic_shards: str, tmp_path: Path) -> None:
    changes = SMALL | {"data.num_frames": 2, "data.num_focus_frames": 2} if precision == "fp16" else {}
    config = override(tiny_config, {**changes, **{f"{name}.precision": precision for name in STAGES}})
    for name in STAGES:
        _, reports = train(name, config, synthetic_shards, tmp_path)
        assert math.isfinite(reports[-1].metrics[f"{name}/loss"])


def test_accumulated_steps_equal_one_large_step(tiny_config: Config, synthetic_shards: str, tmp_path: Path) -> None:
    """Of the classifier on frozen networks: batch norm in training would see micro-batches."""
    config = override(tiny_config, {"warmup.backbone_lr": 0, "model.dropout": 0, "warmup.optimizer": "sgd"})
    train("pretrain", config, synthetic_shards, tmp_path)
    whole = weights(train("warmup", config, synthetic_shards, tmp_path)[0])
    halves = weights(train("warmup", override(config, {"warmup.accumulate": 2}), synthetic_shards, tmp_path)[0])
    for name, value in whole.items():
        torch.testing.assert_close(halves[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("accumulate", [2, 5])
def test_a_data_set_smaller_than_a_batch_is_one_batch_in_as_many_parts(
    accumulate: int, tiny_config: Config, synthetic_shards: str, tmp_path: Path
) -> None:
    """24 clips where 40 were asked for; in five parts, four have five clips and one has four."""
    changes: dict[str, object] = {"model.dropout": 0, "ppo.epochs": 1, "ppo.batch_size": 40}
    changes |= {"warmup.backbone_lr": 0, "warmup.optimizer": "sgd", "warmup.batch_size": 40}
    config = override(tiny_config, changes)
    train("pretrain", config, synthetic_shards, tmp_path)
    for name in ("warmup", "ppo"):
        whole, wanted = train(name, config, synthetic_shards, tmp_path)
        parts, found = train(name, override(config, {f"{name}.accumulate": accumulate}), synthetic_shards, tmp_path)
        for key, value in weights(whole).items():
            torch.testing.assert_close(weights(parts)[key], value, rtol=1e-3, atol=1e-5)
        for key in (f"{name}/loss", f"{name}/accuracy", f"{name}/reward"):
            if key in wanted[-1].metrics:
                assert found[-1].metrics[key] == pytest.approx(wanted[-1].metrics[key], rel=1e-3, abs=1e-5), key


def test_more_micro_batches_than_clips_are_refused(tiny_config: Config, synthetic_shards: str, tmp_path: Path) -> None:
    config = override(tiny_config, {"pretrain.batch_size": 50, "pretrain.accumulate": 25})
    with pytest.raises(UserError, match="1 workers cannot share the 24 clips of split 'train' with accumulate=25"):
        train("pretrain", config, synthetic_shards, tmp_path)


def test_a_batch_that_cannot_be_shared_evenly_is_refused(
    tiny_config: Config, synthetic_shards: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="cannot share evenly"):
        train("pretrain", override(tiny_config, {"pretrain.accumulate": 3}), synthetic_shards, tmp_path)


def test_prefix_loss_is_the_mean_over_clips_and_prefixes() -> None:
    logits = torch.log(torch.tensor([[[0.5, 0.5], [0.25, 0.75]], [[0.1, 0.9], [0.8, 0.2]]]))
    expected = -sum(math.log(p) for p in (0.5, 0.75, 0.1, 0.8)) / 4
    assert prefix_loss(logits, torch.tensor([1, 0])).item() == pytest.approx(expected, rel=1e-6)


def test_one_of_several_labels_is_drawn(tiny_config: Config) -> None:
    labels = torch.tensor([[3, -1, -1], [1, 2, -1]])
    stage = ADAFOCUS.stage("warmup")(build_model(tiny_config, 10), tiny_config)
    drawn = torch.stack([stage.draw_labels(labels) for _ in range(200)])
    assert drawn[:, 0].unique().tolist() == [3]
    assert drawn[:, 1].unique().tolist() == [1, 2] and 60 < (drawn[:, 1] == 1).sum() < 140
