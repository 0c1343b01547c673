"""The line that a stage in training shows says where it stands, and how long the rest may take."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.training.reports import Options, StepReport
from helpers.terminal import terminal
from pipelines.paths import Places
from pipelines.training import stage_progress as module
from pipelines.training.stage_progress import peak_memory, stage_progress
from pipelines.training.train import train_stages

STEP = StepReport("ppo", 1, 2, "training", 1, 4, 32, torch.tensor(0.5))
LINE = re.compile(
    r"(?:(?P<name>[^:]+): )?(?P<stage>\w+), epoch (?P<epoch>\d) of (?P<epochs>\d), (?:step|evaluating,) "
    r"(?P<step>\d+) of (?P<steps>\d+): \S+ clips/s(?:, loss (?P<loss>\S+))?, \d+ MB"
    r"(?:, all stages (?P<all>\S+ \w+) left)?(?:, (?P<what>this stage )?(?P<left>\S+ \w+) left)?"
)


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, str]]:
    found = [LINE.fullmatch(message) for message in caplog.messages]
    return [match.groupdict() for match in found if match]


def test_time_of_this_stage_and_of_all(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the first of two epochs took a minute: three minutes are left, and ten with the five epochs after them
    would be thirteen."""
    monkeypatch.setattr(module, "INTERVAL_S", 0)
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO), stage_progress(2, 5, "gamma=0.5") as watch:
        watch(STEP)
        now[0] += 60
        watch(replace(STEP, step=2))
    (_, line) = lines(caplog)
    assert (line["name"], line["stage"], line["step"], line["loss"]) == ("gamma=0.5", "ppo", "2", "0.5")
    assert (line["left"], line["all"], line["what"]) == ("3.0 min", "13.0 min", "this stage ")
    assert "0.533 clips/s" in caplog.messages[-1]  # the 32 of the second step in that minute


def test_a_stage_that_goes_on_counts_what_it_does_now(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 0)
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO), stage_progress(2) as watch:
        now[0] += 60
        watch(replace(STEP, epoch=2, step=1))  # its first epoch was trained before
        now[0] += 60
        watch(replace(STEP, epoch=2, step=2))
    assert lines(caplog)[-1]["left"] == "60 s" and lines(caplog)[-1]["all"] is None  # two of four steps took one minute


def test_training_shows_every_stage(
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    synthetic_shards: str,
    tiny_config: Config,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 0)
    places, config = Places.of(synthetic_shards, tmp_path), override(tiny_config, {"pretrain.epochs": 2})
    with caplog.at_level(logging.INFO):
        train_stages(config, places, Options(device="cpu"), lambda row: None, ("pretrain", "warmup"))
    found = lines(caplog)
    assert {line["stage"] for line in found} == {"pretrain", "warmup"}
    evaluations = [message for message in caplog.messages if "evaluating" in message]
    assert evaluations and all("loss" not in message for message in evaluations)
    last = [line for line in found if line["stage"] == "pretrain" and line["loss"]][-1]
    assert (last["epoch"], last["epochs"], last["step"]) == ("2", "2", last["steps"])
    caplog.clear()
    train_stages(config, places, Options(device="cpu"), lambda row: None, ("pretrain", "warmup"))
    assert not lines(caplog), "nothing was trained"


def test_a_terminal_gets_a_bar_for_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal() as shown:
        monkeypatch.setattr("sys.stderr", shown.stream)
        with stage_progress(1) as watch:
            for step in range(1, 5):
                watch(replace(STEP, epochs=1, step=step))
    assert "ppo, epoch 1 of 1, step 4 of 4" in shown.text


def test_peak_memory_is_of_this_process() -> None:
    before = peak_memory()
    block = torch.ones(64 << 20)  # 256 MiB
    assert peak_memory() >= before and peak_memory() >= block.nbytes
