"""The page of a benchmark shows the right clips, and what it says of them is what was measured."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from adafocus.evaluation.evaluate import Predictions
from pipelines.benchmarks.gallery import GALLERY, select_clips
from pipelines.cli.main import main
from pipelines.tracking.client import Tracker


def test_best_worst_and_uncertain() -> None:
    prob_NK = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.99, 0.01], [0.5, 0.5], [0.3, 0.7]])
    labels_NL = torch.tensor([[0, -1], [0, -1], [0, -1], [1, 0], [0, -1], [0, -1]])
    names = ["sure", "wrong", "likely", "second label", "open", "less wrong"]
    selected = select_clips(Predictions(names, labels_NL, prob_NK.log()[:, None], None, None), 2)
    assert list(selected.values()) == [["second label", "sure"], ["wrong", "less wrong"], ["open", "likely"]]
    everything = select_clips(Predictions(names, labels_NL, prob_NK.log()[:, None], None, None), 9)
    assert [len(ids) for ids in everything.values()] == [4, 2, 6]


def test_it_is_logged_with_the_benchmark(
    checkpoints: dict[str, Path], synthetic_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["benchmark", "--checkpoint", checkpoints["clip"], "--shards", synthetic_shards]
    monkeypatch.setattr(sys, "argv", ["adafocus", *map(str, argv), "--runs", str(tmp_path), "--explain", "2"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    tracker = Tracker(tmp_path)
    (run,) = tracker.find("benchmark")
    path = Path(tracker.client.download_artifacts(run.info.run_id, GALLERY, str(tmp_path)))
    found = re.search(r"^const DATA = (.*);$", path.read_text(), re.MULTILINE)
    assert found
    sections = json.loads(found[1])["sections"]
    assert {section["heading"].split(":")[0] for section in sections} <= {"Best", "Worst", "Most uncertain"}
    clips = [(section["heading"], clip) for section in sections for clip in section["clips"]]
    assert len(clips) >= 4
    for heading, clip in clips:
        assert clip["truth"] in map(str, range(10)) and len(clip["frames"]) == 6
        if heading.startswith(("Best", "Worst")):
            assert (clip["best"][-1]["name"] == clip["truth"]) == heading.startswith("Best")
