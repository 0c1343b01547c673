"""A step of training: micro-batches, passes, clipping, and what is kept for how long."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.data.batches import Batch
from adafocus.methods import build_model, method_of
from adafocus.methods.adafocus import ADAFOCUS
from adafocus.stages.ppo import PPO
from adafocus.stages.stage import Stage
from adafocus.training.loss_watch import LossWatch
from adafocus.training.seeding import seed_step
from adafocus.training.update import Updater
from helpers.tiny import STAGES
from pipelines.benchmarks.profiling import TensorMemory
from pipelines.recipes import RECIPES
from preprocessing.schema import UserError

MakeBatch = Callable[..., Batch]
FAMILIES = ("activitynet-128", "ssv1-144")
CLIPS, CLASSES = 8, 5


@pytest.fixture
def small(tiny_form: Callable[[Config], Config]) -> Callable[..., Config]:
    """small(recipe, changes) is a recipe's tiny form in float32, without dropout."""

    def make(recipe: str, changes: dict[str, object]) -> Config:
        plain = {"model.dropout": 0, "model.finetune_dropout": 0, "model.policy_norm": False}
        plain |= {f"{name}.precision": "float32" for name in STAGES} | {f"{name}.clip_grad_norm": 0 for name in STAGES}
        return override(tiny_form(RECIPES[recipe]()), {**plain, **changes})

    return make


def part(batch: Batch, number: int, count: int) -> Batch:
    """One of so many micro-batches, with several labels a clip, of which one is drawn."""
    labels_BL = torch.stack([(batch.labels_BL[:, 0] + shift) % CLASSES for shift in range(3)], 1)
    tensors = (each.tensor_split(count)[number] for each in (batch.glance_BTCHW, batch.focus_BTCHW, labels_BL))
    return Batch(*tensors, batch.clip_ids[number * CLIPS // count : (number + 1) * CLIPS // count])


def updater(name: str, config: Config) -> Updater:
    torch.manual_seed(0)
    stage = ADAFOCUS.stage(name)(build_model(config, CLASSES), config)
    optimizer = torch.optim.SGD([p for p in stage.parameters() if p.requires_grad], lr=0.1, fused=stage.fused)
    stage.train()
    fp16 = stage.settings.precision == "fp16"
    return Updater(stage, optimizer, torch.amp.GradScaler("cpu", enabled=fp16), torch.device("cpu"), wrapped=stage)


def step(made: Updater, batch: Batch) -> dict[str, float]:
    count = made.stage.settings.accumulate
    seed_step(0, made.stage.name, 0, 0, made.stage.draws)
    logs = made.step((part(batch, number, count) for number in range(count)), LossWatch())
    return {key: value.item() for key, value in logs.items()}


def moved(made: Updater, before: dict[str, Tensor]) -> Tensor:
    """How far the step went, as one vector."""
    after = dict(made.stage.named_parameters())
    return torch.cat([(after[key].detach() - value).flatten() for key, value in before.items()])


def start(made: Updater) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in made.stage.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("count", [2, 4, 8])
@pytest.mark.parametrize("name", ["warmup", "ppo", "finetune"])
@pytest.mark.parametrize("recipe", FAMILIES)
def test_micro_batches_make_the_step_of_the_whole_batch(
    recipe: str, name: str, count: int, small: Callable[..., Config], make_batch: MakeBatch
) -> None:
    """On frozen networks without dropout; down to one clip each, of which a policy per clip has a single return."""
    frozen = {} if name == "ppo" else {f"{name}.backbone_lr": 0}
    steps = []
    for accumulate in (1, count):
        config = small(recipe, {**frozen, f"{name}.accumulate": accumulate})
        made = updater(name, config)
        before = start(made)
        logs = step(made, make_batch(config, CLIPS, CLASSES, seed=1))
        steps.append((moved(made, before), logs))
    (whole, whole_logs), (parts, parts_logs) = steps
    assert whole.norm() > 1e-4
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-6)
    for key in {"loss", "accuracy", "policy_loss", "reward", "entropy", "ratio"} & whole_logs.keys():
        assert parts_logs[key] == pytest.approx(whole_logs[key], rel=1e-3, abs=1e-5), key


@pytest.mark.parametrize("recipe", FAMILIES)
def test_micro_batches_draw_what_the_whole_batch_draws(
    recipe: str, small: Callable[..., Config], make_batch: MakeBatch
) -> None:
    found = []
    for count in (1, 4):
        config = small(recipe, {"ppo.accumulate": count})
        stage = updater("ppo", config).stage
        assert isinstance(stage, PPO)
        batch, rollouts = make_batch(config, CLIPS, CLASSES, seed=1), []
        seed_step(0, "ppo", 0, 0, stage.draws)
        for number in range(count):
            stage.begin(number)
            with torch.no_grad():
                rollouts.append(stage.collect(part(batch, number, count)))
        found.append({key: torch.cat([rollout[key] for rollout in rollouts]) for key in ("action", "rewards")})
    whole, parts = found
    assert parts["action"].equal(whole["action"]) and whole["action"].unique().numel() > 4
    torch.testing.assert_close(
        parts["rewards"], whole["rewards"], rtol=1e-3, atol=1e-5
    )  # random patches and labels too


def test_one_state_has_no_statistics(small: Callable[..., Config]) -> None:
    def stage(recipe: str, norm: bool) -> Stage:
        config = small(recipe, {"model.policy_norm": norm, "ppo.accumulate": 64})
        return ADAFOCUS.stage("ppo")(build_model(config, CLASSES), config)

    for fine in (stage("ssv1-144", False), stage("activitynet-128", True)):
        fine.check_batch(1)
    stage("ssv1-144", True).check_batch(2)
    with pytest.raises(UserError, match=r"ppo.batch_size=64 with ppo.accumulate=64 leaves one: .*policy_norm=false"):
        stage("ssv1-144", True).check_batch(1)


def test_one_clip_has_no_statistics_for_a_policy_that_acts_once_for_it(small: Callable[..., Config]) -> None:
    stages = {}
    for recipe in ("ssv1-v2-144", "activitynet-v2-128"):
        config = small(recipe, {"joint.accumulate": 32})
        stages[recipe] = method_of(config).stage("joint")(build_model(config, CLASSES), config)
    stages["activitynet-v2-128"].check_batch(1)
    stages["ssv1-v2-144"].check_batch(2)
    with pytest.raises(UserError, match=r"joint.batch_size=32 with joint.accumulate=32 leaves one"):
        stages["ssv1-v2-144"].check_batch(1)


@pytest.mark.parametrize("passes", [1, 3])
def test_batch_norms_of_the_policy_move_once_a_pass(
    passes: int, small: Callable[..., Config], make_batch: MakeBatch
) -> None:
    """By each pass's statistics, and not by the rollout's."""
    config = small("ssv1-144", {"model.policy_norm": True, "ppo.update_epochs": passes, "ppo.accumulate": 2})
    made, batch = updater("ppo", config), make_batch(small("ssv1-144", {}), CLIPS, CLASSES, seed=1)
    norm = next(each for each in made.stage.model.policy.modules() if isinstance(each, torch.nn.BatchNorm1d))
    with torch.no_grad():
        made.stage.collect(part(batch, 0, 2))
    assert norm.num_batches_tracked == 0 and not norm.running_mean.any() and (norm.running_var == 1).all()
    seen: list[Tensor] = []
    norm.register_forward_hook(lambda module, given, out: seen.append(given[0].detach().mean(0)))
    step(made, batch)
    assert norm.num_batches_tracked == 2 * passes and len(seen) == 2 + 2 * passes
    expected = torch.zeros_like(seen[0])
    for mean in seen[2:]:
        expected = 0.9 * expected + 0.1 * mean
    torch.testing.assert_close(norm.running_mean, expected)


def test_logs_are_means_over_passes_and_micro_batches(
    small: Callable[..., Config], make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small("activitynet-128", {"ppo.update_epochs": 3, "ppo.accumulate": 2, "ppo.clip_grad_norm": 1.0})
    made = updater("ppo", config)
    each: list[dict[str, float]] = []
    made.stage.register_forward_hook(
        lambda module, given, out: each.append({"loss": out[0].item()} | {k: v.item() for k, v in out[1].items()})
    )
    clip, norms = torch.nn.utils.clip_grad_norm_, []
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *given: norms.append(clip(*given)) or norms[-1])
    logs = step(made, make_batch(config, CLIPS, CLASSES, seed=1))
    assert len(each) == 6 and each[0]["ratio"] == pytest.approx(1, abs=1e-6) and each[5]["approx_kl"] > 1e-7
    for key in each[0]:
        assert logs[key] == pytest.approx(sum(row[key] for row in each) / 6, rel=1e-5, abs=1e-7), key
    norms = torch.stack(norms)
    assert logs["grad_norm"] == pytest.approx(norms.mean().item()) and norms.std() > 0


@pytest.mark.parametrize(("precision", "accumulate"), [("float32", 1), ("float32", 4), ("fp16", 1), ("fp16", 4)])
def test_gradients_are_clipped_to_their_norm(
    precision: str, accumulate: int, small: Callable[..., Config], make_batch: MakeBatch
) -> None:
    """After scaling is undone, and over the sum of the micro-batches: SGD at rate 0.1 then goes 0.1 of the limit."""
    changes = {"warmup.backbone_lr": 0, "warmup.precision": precision, "warmup.accumulate": accumulate}
    steps = []
    for limit in (0.0, 1e-2, 1e3):
        config = small("activitynet-128", {**changes, "warmup.clip_grad_norm": limit})
        made = updater("warmup", config)
        before = start(made)
        logs = step(made, make_batch(config, CLIPS, CLASSES, seed=1))
        steps.append((moved(made, before), logs.get("grad_norm")))
    (free, none), (clipped, norm), (loose, loose_norm) = steps
    assert none is None and norm == pytest.approx(loose_norm, rel=1e-4)
    assert norm == pytest.approx(10 * free.norm().item(), rel=1e-3) and norm > 0.1
    assert clipped.norm().item() == pytest.approx(0.1 * 1e-2, rel=1e-3)
    torch.testing.assert_close(clipped * norm / 1e-2, free, rtol=1e-2, atol=1e-5)
    torch.testing.assert_close(loose, free, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["pretrain", "warmup", "finetune"])
def test_micro_batches_take_the_memory_of_one(name: str, small: Callable[..., Config], make_batch: MakeBatch) -> None:
    """One is done with before the next: six of two clips take hardly more than one of two clips."""
    peaks = []
    for count in (1, 6):
        config = small("ssv1-144", {f"{name}.accumulate": count, "pretrain.backbone_lr": 0, "warmup.backbone_lr": 0})
        made = updater(name, config)
        clips = (make_batch(config, 2, CLASSES, seed=number) for number in range(count))
        seed_step(0, name, 0, 0, made.stage.draws)
        with TensorMemory() as memory:
            made.step(iter(clips), LossWatch())
        peaks.append(memory.peak)
    gradients = sum(4 * value.numel() for value in made.stage.parameters() if value.requires_grad)
    assert peaks[1] < peaks[0] + 1.1 * gradients + 4096


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("recipe", FAMILIES)
def test_steps_in_half_precision_need_no_fused_convolutions(
    recipe: str,
    name: str,
    precision: str,
    small: Callable[..., Config],
    make_batch: MakeBatch,
    no_fused_convolutions: None,
) -> None:
    config = small(recipe, {f"{name}.precision": precision})
    made = updater(name, config)
    before = start(made)
    logs = step(made, make_batch(config, CLIPS, CLASSES, seed=1))
    assert all(math.isfinite(value) for key, value in logs.items() if key != "grad_norm")
    assert moved(made, before).norm() > 0 or precision == "fp16"  # whose scaler may leave out the first step


def test_a_first_step_that_a_scaler_leaves_out_leaves_no_momentum(
    small: Callable[..., Config], make_batch: MakeBatch
) -> None:
    """torch fills memory that was never written with NaN here: else it may be zeros by luck."""
    config = small("activitynet-128", {"pretrain.precision": "fp16"})
    torch.manual_seed(0)
    stage = ADAFOCUS.stage("pretrain")(build_model(config, CLASSES), config).train()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)  # too large for 16 bits
    made = Updater(stage, stage.optimizer(), scaler, torch.device("cpu"), wrapped=stage)
    before = {name: value.clone() for name, value in stage.named_parameters()}
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        step(made, make_batch(config, CLIPS, CLASSES, seed=0))
        assert (
            all(value.equal(before[name]) for name, value in stage.named_parameters()) and scaler.get_scale() < 2.0**40
        )
        scaler.update(1.0)
        step(made, make_batch(config, CLIPS, CLASSES, seed=0))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(value.isfinite().all() for value in stage.parameters())
    assert any(not value.equal(before[name]) for name, value in stage.named_parameters())
