"""The stage of AdaFocus+: what it shares, what it changes, what price and threshold do, and that it can be resumed."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adafocus import checkpoint
from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.data.loader import ClipLoader
from adafocus.evaluation.evaluate import evaluate
from adafocus.methods import build_model
from adafocus.methods.adafocus_plus import ADAFOCUS_PLUS
from adafocus.methods.identity import stage_folders, stage_key
from adafocus.stages.skip import DAMPING, Skip
from adafocus.training.reports import EpochReport, Options
from adafocus.training.stage_runner import run_stage
from adafocus.training.update import Updater
from helpers.tiny import noise_batch
from preprocessing.shards.index import read_metadata

SHARED = ("pretrain", "warmup", "ppo")


@pytest.fixture
def config(tiny_config: Config) -> Config:
    return override(tiny_config, {"method": "adafocus-plus", "skip.epochs": 2, "skip.batch_size": 8})


def make_stage(config: Config) -> Skip:
    torch.manual_seed(0)
    stage = ADAFOCUS_PLUS.stage("skip")(build_model(config, 5), config)
    assert isinstance(stage, Skip)
    stage.train()
    return stage


def collect(stage: Skip, config: Config, clips: int = 8) -> dict:
    with torch.no_grad():
        return stage.collect(noise_batch(config, clips, 5, seed=1))


def train(name: str, config: Config, shards: str, runs: Path, **options: object) -> tuple[Path, list[EpochReport]]:
    rows: list[EpochReport] = []
    where = {"shards": shards, "runs": runs, "options": Options(device="cpu", **options)}
    return run_stage(name, config, **where, report=rows.append), rows


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*.safetensors")))


def test_a_step_changes_gate_and_classifier_alone(config: Config) -> None:
    stage = make_stage(config)
    before, optimizer = copy.deepcopy(stage.model.state_dict()), stage.optimizer()
    collected = collect(stage, config)
    stage.prepare([collected])
    loss, logs = stage(collected)
    loss.backward()
    optimizer.step()
    changed = {name.split(".")[0] for name, value in stage.model.state_dict().items() if not value.equal(before[name])}
    assert changed == {"gate", "classifier"}
    assert not stage.model.gate.blank.equal(before["gate.blank"]), "what stands in for skipped frames learns too"
    assert logs["ratio"].item() == pytest.approx(1, abs=1e-6), "what was drawn is judged by what drew it"


def test_a_decision_that_brings_more_than_the_price_is_made_likelier(config: Config) -> None:
    stage = make_stage(config)
    collected = collect(stage, config)
    worth = collected["gain"] / collected["gain"].square().mean().sqrt()
    off = collected["score"].sigmoid().mean() - stage.settings.budget
    stage.prepare([collected])
    worth = worth - DAMPING * off  # the price itself is 0 at first
    likelier = torch.where(collected["looks"], 1, -1) * collected["advantage"] > 0
    clear = worth.abs() > 0.01
    assert clear.any() and torch.equal(likelier[clear], worth[clear] > 0)


@pytest.mark.parametrize(("share", "rises"), [(0.9, True), (0.2, False)])
def test_the_price_follows_the_share_of_looks(share: float, rises: bool, config: Config) -> None:
    """It rises while more frames are looked at than the budget allows, and falls while fewer are."""
    stage = make_stage(config)
    with torch.no_grad():
        stage.plus.gate.actor.bias.fill_(torch.logit(torch.tensor(share)))
    stage.prepare([collect(stage, config)])
    price = config.skip.price_lr * (share - config.skip.budget)
    assert stage.plus.gate.price.item() == pytest.approx(price, rel=1e-3) and (price > 0) == rises


@pytest.mark.parametrize("budget", [0.46, 0.67, 0.89])
def test_the_threshold_keeps_to_the_budget(budget: float, config: Config) -> None:
    """On clips of the kind that it was solved on."""
    stage = make_stage(override(config, {"skip.budget": budget}))
    gate, noise = stage.plus.gate, torch.Generator().manual_seed(0)
    with torch.no_grad():
        gate.actor.weight.normal_(generator=noise)
        seen, others = torch.randn(2, 2000, 4, config.model.policy_hidden, generator=noise)
        assert gate.decide(seen)[0].all(), "before training, all pass"
        stage.set_threshold(gate.state(seen))
    assert gate.decide(seen)[0].float().mean().item() == pytest.approx(budget, abs=1e-3)
    assert gate.decide(others)[0].float().mean().item() == pytest.approx(budget, abs=0.02)


def test_a_finished_stage_keeps_to_the_budget_on_training_clips(
    config: Config, through_ppo: Path, synthetic_shards: str, tmp_path: Path
) -> None:
    """With the gate that is committed, and on the frames that an evaluation of these clips sees."""
    config = override(config, {"skip.budget": 0.5})
    folder, _ = train("skip", config, synthetic_shards, shutil.copytree(through_ppo, tmp_path / "runs"))
    model, _ = checkpoint.load_model(folder)
    loader = ClipLoader(synthetic_shards, "train", model.config.data, batch_size=8, train=False)
    looked = evaluate(model, loader).metrics()["looked"]
    assert looked <= 50 + 1e-6 and looked > 50 - 100 / 8, "scores of a clip may be equal, so a share may be passed over"


def test_stages_before_it_are_those_of_plain_adafocus(
    config: Config, tiny_config: Config, synthetic_shards: str, tmp_path: Path
) -> None:
    """Whichever method trained them, the other finds them and goes on from them."""
    digest = read_metadata(synthetic_shards).digest
    for name in SHARED:
        assert stage_key(config, name, digest) == stage_key(tiny_config, name, digest)
    one = override(tiny_config, {f"{name}.epochs": 1 for name in (*SHARED, "finetune", "skip")})
    plus = override(one, {"method": "adafocus-plus", "skip.batch_size": 8})
    for number, (first, second) in enumerate(((one, plus), (plus, one))):
        runs = tmp_path / str(number)
        for each in SHARED:
            train(each, first, synthetic_shards, runs)
        made = {path.name: path.stat().st_mtime_ns for path in runs.glob("*/*.safetensors")}
        last = "skip" if second is plus else "finetune"
        folder, _ = train(last, second, synthetic_shards, runs)
        assert made == {
            path.name: path.stat().st_mtime_ns for path in runs.glob("*/*.safetensors") if path.name in made
        }
        model, meta = checkpoint.load_model(folder)
        assert meta.stages == [path.name for path in stage_folders(second, runs, digest)]
        finished = weights(runs / meta.stages[-2])
        for name, value in model.policy.state_dict().items():
            assert torch.equal(value, finished[f"policy.{name}"])
    assert not meta.lacking("policy")


@pytest.fixture(scope="module")
def through_ppo(tiny_config: Config, synthetic_shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stages that AdaFocus+ shares, trained."""
    runs = tmp_path_factory.mktemp("runs")
    for name in SHARED:
        train(name, tiny_config, synthetic_shards, runs)
    return runs


class StoppedError(Exception):
    pass


def test_a_stopped_run_ends_with_the_same_bits(
    config: Config, through_ppo: Path, synthetic_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Price and threshold too, after a stop inside the second epoch."""
    config = override(config, {"skip.update_epochs": 2, "skip.accumulate": 2})
    whole, expected = (shutil.copytree(through_ppo, tmp_path / name) for name in ("whole", "stopped"))
    finished, rows = train("skip", config, synthetic_shards, whole)
    original, steps = Updater.step, 0

    def stop(self: Updater, *arguments: object) -> object:
        nonlocal steps
        steps += 1
        if steps > 4:
            raise StoppedError
        return original(self, *arguments)

    monkeypatch.setattr(Updater, "step", stop)
    with pytest.raises(StoppedError):
        train("skip", config, synthetic_shards, expected, save_every_s=0)
    monkeypatch.setattr(Updater, "step", original)
    resumed, replayed = train("skip", config, synthetic_shards, expected, save_every_s=0)
    left, right = weights(finished), weights(resumed)
    assert left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())
    assert left["gate.price"] != 0 and left["gate.threshold"] > -100
    assert rows[-1].metrics["skip/val_looked"] == replayed[-1].metrics["skip/val_looked"]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_trains(
    precision: str, config: Config, through_ppo: Path, synthetic_shards: str, tmp_path: Path
) -> None:
    runs = shutil.copytree(through_ppo, tmp_path / "runs")
    _, rows = train("skip", override(config, {"skip.precision": precision, "skip.epochs": 1}), synthetic_shards, runs)
    assert rows[-1].metrics["skip/loss"] == pytest.approx(rows[-1].metrics["skip/loss"])


def test_two_budgets_are_two_results(config: Config) -> None:
    keys = {stage_key(override(config, {"skip.budget": budget}), "skip", "d") for budget in (0.46, 0.67, 0.89)}
    assert len(keys) == 3
