"""Several workers train as one does, and stop together."""

from __future__ import annotations

import socket
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from adafocus import checkpoint
from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.data.loader import ClipLoader
from adafocus.evaluation.evaluate import Predictions, evaluate
from adafocus.methods import method_of, stage_names
from adafocus.stages.ppo import PPO
from adafocus.stages.pretrain import Pretrain
from adafocus.stages.skip import Skip
from adafocus.training import trainer
from adafocus.training.reports import EpochReport, Options, Report
from adafocus.training.stage_runner import run_stage
from helpers.packing import pack
from helpers.tiny import PER_CLIP, STAGES, UNI
from preprocessing.datasets import synthetic
from preprocessing.schema import ExtractionSpec
from preprocessing.shards.planning.job import Job
from preprocessing.shards.storage import Store


@pytest.fixture(scope="module")
def labelled_twice(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The small synthetic data set, every second clip of which has a second label."""
    info, found = synthetic.read_clips(synthetic_root)
    clips = [
        replace(clip, labels=(clip.labels[0], (clip.labels[0] + number) % 10)[: 1 + number % 2])
        for number, clip in enumerate(found)
    ]
    out = Store(tmp_path_factory.mktemp("shards"))
    pack(Job(out, synthetic_root, info, ExtractionSpec(height=40), clips_per_shard=12), clips)
    return out.url


STEADY: dict[str, object] = {
    "model.dropout": 0,
    "ppo.update_epochs": 2,
    **{f"{name}.epochs": 1 for name in STAGES},
    **{f"{name}.optimizer": "sgd" for name in STAGES if name != "ppo"},
}
"""Changes without what is each worker's own: dropout's masks."""
JOINT: dict[str, object] = {"method": "adafocus-v2", "model.dropout": 0, "joint.epochs": 1, "joint.batch_size": 8}
UNIFIED: dict[str, object] = {**UNI, "model.dropout": 0, "unified.epochs": 1}
CLIP: dict[str, object] = {**PER_CLIP, "model.reuse_glance": False, "model.head_dropout": 0}
KINDS: list[tuple[str, dict[str, object]]] = [
    ("frame", STEADY),
    ("frame", {**STEADY, "method": "adafocus-plus", "skip.epochs": 1, "skip.batch_size": 8}),  # one stage more
    ("clip", {**STEADY, **CLIP}),
    ("joint", JOINT),
    ("joint per clip", {**CLIP, **JOINT}),
    ("unified", UNIFIED),
    ("unified per clip", {**CLIP, **UNIFIED}),
]
"""Folders with what is trained in them."""
NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)


def train_all(config: Config, changes: dict[str, object], shards: str, runs: Path) -> None:
    """Every stage of every kind, made comparable.

    Batch norms use their running statistics in training too, for those of a batch are those of a worker's share of it.
    Policy and gate learn by SGD, for Adam makes whole steps out of rounding errors.
    """
    for kind in NORMS:
        kind.train = lambda self, mode=True: torch.nn.Module.train(self, False)
    PPO.optimizer = lambda self: torch.optim.SGD(self.model.policy.parameters(), lr=0.1, momentum=0.9)
    Skip.optimizer = lambda self: torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)
    for folder, kind_changes in KINDS:
        changed = override(config, {**kind_changes, **changes})
        for name in method_of(changed).stage_names:
            train(name, changed, shards, runs / folder)


def train(name: str, config: Config, shards: str, runs: Path, report: Report = lambda row: None) -> None:
    run_stage(name, config, shards=shards, runs=runs, options=Options(device="cpu"), report=report)


def join(rank: int, world: int, port: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world, timeout=timedelta(seconds=120)
    )


def worker(rank: int, world: int, config: Config, shards: str, runs: Path, port: int) -> None:
    """What the two tests below look at: to start workers costs more than what they do."""
    join(rank, world, port)
    keep_predictions(rank, override(config, {f"{name}.epochs": 1 for name in LOGGED}), shards, runs)
    train_all(config, {f"{name}.accumulate": 2 for name in stage_names()}, shards, runs / "two")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def of_two_workers(tiny_config: Config, labelled_twice: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that two workers have left."""
    runs = tmp_path_factory.mktemp("workers")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(worker, (2, tiny_config, labelled_twice, runs, port), nprocs=2)
    return runs


def test_two_workers_train_every_stage_as_one_does(
    tiny_config: Config, labelled_twice: str, of_two_workers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the same global batches, with the same random patches, actions and labels, to the same weights.

    The two take each batch in two micro-batches more, and the policy that acts per clip has batch norms. Dropout,
    whose masks are each worker's own, is left out.
    """
    for kind in NORMS:
        monkeypatch.setattr(kind, "train", kind.train)  # so that it is put back
    for stage in (PPO, Skip):
        monkeypatch.setattr(stage, "optimizer", stage.optimizer)
    train_all(tiny_config, {}, labelled_twice, tmp_path)
    assert len({folder for folder, _ in KINDS}) == len(list(tmp_path.iterdir()))
    for folder, changes in KINDS:
        for name in method_of(override(tiny_config, changes)).stage_names:
            where = f"{name} of {folder}"
            ((one,), (two,)) = (list((each / folder).glob(f"{name}-*")) for each in (tmp_path, of_two_workers / "two"))
            expected, found = (load_file(next(each.glob("*.safetensors"))) for each in (one, two))
            for key, value in found.items():
                assert torch.allclose(value, expected[key], rtol=1e-3, atol=2e-5), f"{where}: {key}"
            left, right = (checkpoint.read_meta(each).history[-1]["metrics"] for each in (one, two))
            for key in left:
                if key.endswith(("/loss", "/accuracy", "/reward", "/val_map", "/approx_kl")):
                    assert left[key] == pytest.approx(right[key], rel=1e-3, abs=1e-4), f"{where}: {key}"


def diverge(rank: int, world: int, config: Config, shards: str, runs: Path, port: int) -> None:
    """Train, with a loss of rank 1 that is NaN in the epoch's last step; leave what was raised in a file."""
    join(rank, world, port)
    original, calls = Pretrain.forward, 0

    def forward(self: Pretrain, collected: dict) -> tuple:
        nonlocal calls
        calls += 1
        loss, logs = original(self, collected)
        return (loss * float("nan") if rank == 1 and calls == 3 else loss), logs

    Pretrain.forward = forward
    try:
        train("pretrain", config, shards, runs)
    except Exception as error:
        (runs / f"{rank}.txt").write_text(f"{type(error).__name__}: {error}")


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_all_workers(
    tiny_config: Config, synthetic_shards: str, tmp_path: Path, free_port: int
) -> None:
    """In the step after which they look: whoever saw a good loss would wait for the others' gradients."""
    mp.spawn(diverge, (2, tiny_config, synthetic_shards, tmp_path, free_port), nprocs=2)
    raised = [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)]
    assert raised[0] == raised[1]
    assert raised[0].startswith("NonFiniteLossError: the loss is nan on the batch of clips train/"), raised[0]
    assert not list(tmp_path.glob("pretrain-*/meta.json"))


LOGGED = {"pretrain": {"val_glancer": "glancer", "val_focuser": "whole"}, "warmup": {"val": "random"}}
"""Prefixes of the metrics that a stage logs, and where the focuser looks for them."""


def keep_predictions(rank: int, config: Config, shards: str, runs: Path) -> None:
    """Train two stages, and leave the logits of their evaluations in a file."""
    logits: list[torch.Tensor] = []

    def keeping(*arguments: object, **settings: object) -> Predictions:
        found = evaluate(*arguments, **settings)
        logits.append(found.logits_NTK)
        return found

    trainer.evaluate = keeping
    for name in LOGGED:
        train(name, config, shards, runs)
    trainer.evaluate = evaluate
    torch.save(logits, runs / f"{rank}.pt")


def test_what_training_logs_is_what_its_weights_do(
    tiny_config: Config, labelled_twice: str, of_two_workers: Path
) -> None:
    """Batch norms of each worker have seen its own clips; those of the first are the ones that are kept."""
    logged = iter(torch.load(of_two_workers / "0.pt"))
    for name, prefixes in LOGGED.items():
        model, meta = checkpoint.load_model(next(of_two_workers.glob(f"{name}-*")))
        loader = ClipLoader(labelled_twice, "val", tiny_config.data, batch_size=8, train=False)
        for prefix, source in prefixes.items():
            found = evaluate(model, loader, patches=source, seed=tiny_config.seed)
            torch.testing.assert_close(next(logged), found.logits_NTK, rtol=1e-4, atol=1e-5)
            for key, value in found.metrics().items():
                assert meta.metrics[f"{name}/{prefix}_{key}"] == pytest.approx(value, rel=1e-4), key


class StoppedError(Exception):
    """Stands for whatever ends all workers of a group."""


def stop_and_go_on(rank: int, world: int, config: Config, shards: str, runs: Path, port: int) -> None:
    """Train two stages without a stop, and with one after the second stage's first epoch.

    Files are seen by the first worker alone: the others' machines have not heard of them yet.
    """
    join(rank, world, port)

    def train_two(folder: str, report: Report) -> None:
        for name in ("pretrain", "warmup"):
            train(name, config, shards, runs / folder / str(rank), report)

    def stop(row: EpochReport) -> None:
        if row.clock == 3:
            raise StoppedError

    train_two("whole", lambda row: None)
    with pytest.raises(StoppedError):
        train_two("stopped", stop)
    rows: list[EpochReport] = []
    train_two("stopped", rows.append)
    assert [row.clock for row in rows] == [1, 2, 3, 4]
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_workers_go_on_from_what_the_first_one_sees(
    tiny_config: Config, synthetic_shards: str, tmp_path: Path, free_port: int
) -> None:
    config = override(tiny_config, {"pretrain.optimizer": "adamw", "warmup.optimizer": "adamw"})
    mp.spawn(stop_and_go_on, (2, config, synthetic_shards, tmp_path, free_port), nprocs=2)
    whole, stopped = (
        load_file(next(tmp_path.glob(f"{each}/0/warmup-*/*.safetensors"))) for each in ("whole", "stopped")
    )
    assert whole.keys() == stopped.keys() and all(torch.equal(value, stopped[key]) for key, value in whole.items())
    assert not list(tmp_path.glob("*/1/*-*"))
