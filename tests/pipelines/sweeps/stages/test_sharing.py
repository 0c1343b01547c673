"""Hours that trials saved each other, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adafocus import checkpoint
from pipelines.sweeps.stages.sharing import measure_reuse

START = 1_000_000


def stage(runs: Path, name: str, hours: float, began_ms: int, finished: bool = True) -> Path:
    folder = runs / name
    folder.mkdir()
    row = {"stage": name, "clock": 1, "metrics": {}, "time_ms": began_ms}
    info = {"name": "d", "class_names": []}
    meta = {"config": {}, "stage": name, "key": "", "digest": "", "info": info, "history": [row]}
    if finished:
        (folder / checkpoint.META).write_text(json.dumps({**meta, "seconds": hours * 3600, "weights": "w"}))
    return folder


def test_hours_are_counted_by_hand(tmp_path: Path) -> None:
    """Three trials: pretrain is older than the sweep, warmup was trained for it, one ppo is shared by two of them, the
    third trial failed in its ppo."""
    pretrain = stage(tmp_path, "pretrain", 10, START - 1)
    warmup = stage(tmp_path, "warmup", 5, START)
    ppo = stage(tmp_path, "ppo", 4, START + 9)
    broken = stage(tmp_path, "ppo2", 3, START + 9, finished=False)
    ends = [stage(tmp_path, f"finetune{n}", 1, START + 20) for n in range(2)]
    reuse = measure_reuse(
        [[pretrain, warmup, ppo, ends[0]], [pretrain, warmup, ppo, ends[1]], [pretrain, warmup, broken]], START
    )
    assert reuse.stages_trained == 4  # warmup, ppo, two finetunes
    assert reuse.stages_reused == 3 + 2 + 1  # pretrain by all, warmup by two more, ppo by one more
    assert reuse.hours_trained == pytest.approx(5 + 4 + 1 + 1)
    assert reuse.hours_saved == pytest.approx(3 * 10 + 2 * 5 + 4)
    assert reuse.metrics() == {
        "reuse/stages_trained": 4.0,
        "reuse/stages_reused": 6.0,
        "reuse/hours_trained": pytest.approx(11.0),
        "reuse/hours_saved": pytest.approx(44.0),
    }
    assert (
        reuse.line()
        == "stages: 4 trained in 11.0 stage-hours, 6 times one was found finished, which saved 44.0 stage-hours"
    )


def test_nothing_shared_saves_nothing(tmp_path: Path) -> None:
    reuse = measure_reuse([[stage(tmp_path, "a", 0.01, START)], [stage(tmp_path, "b", 0.02, START)]], START)
    assert (reuse.stages_trained, reuse.stages_reused, reuse.hours_saved) == (2, 0, 0)
    assert "108 stage-seconds" in reuse.line()
