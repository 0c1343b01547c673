"""A comparison of methods as users start it, what it logs, and what the report makes of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from adafocus import checkpoint
from helpers.tiny import STAGES, TINY, UNI
from pipelines.benchmarks.frontier import Contestant, training_cost
from pipelines.cli.main import main
from pipelines.paths import Places
from pipelines.reporting import pages
from pipelines.reporting.collect import collect_report
from pipelines.tracking.client import Tracker
from preprocessing.schema import UserError

SMALL = {
    **{key: value for key, value in TINY.items() if not isinstance(value, tuple)},
    **{f"{stage}.epochs": 1 for stage in (*STAGES, "joint")},
    "joint.batch_size": 8,
}
CONTESTANTS = {"demo": SMALL, "demo-v2": SMALL, "demo-uni": {**SMALL, **UNI, "unified.epochs": 1}}


@pytest.mark.slow
def test_methods_in_one_table_and_one_chart(
    synthetic_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = [
        recipe + "".join(f":{key}={value}" for key, value in changes.items()) for recipe, changes in CONTESTANTS.items()
    ]
    words = ["--shards", synthetic_shards, "--runs", str(tmp_path), "--device", "cpu", "--json"]
    monkeypatch.setattr(sys, "argv", ["adafocus", "frontier", "--recipes", ",".join(recipes), *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    table = json.loads(capsys.readouterr().out)
    points = {recipe: [point for point in table["points"] if point["contestant"] == recipe] for recipe in recipes}
    for recipe, own in points.items():
        labels = [point["label"] for point in own]
        assert [point["kind"] for point in own].count("own") == 1
        whole = next(point for point in own if point["kind"] == "own")
        stopped = [point for point in own if point["kind"] == "prefix"]
        glances_first = recipe.startswith("demo-uni")
        counts = range(4) if glances_first else range(1, 4)
        assert [point["label"] for point in stopped] == [f"stopped after {count} frames" for count in counts]
        costs = [point["gflops"] for point in (*stopped, whole)]
        assert costs == sorted(set(costs))
        if glances_first:  # it takes no other number of frames
            assert not any("evenly spread" in label for label in labels)
        else:
            assert {f"{count} frames, evenly spread" for count in (1, 2, 3)} <= set(labels)
            half = next(point for point in own if point["label"] == "2 frames, evenly spread")
            assert half["gflops"] == pytest.approx(whole["gflops"] / 2)
        assert table["training"][recipe]["processor_minutes"] > 0
    places = Places.of(synthetic_shards, tmp_path)
    (run,) = Tracker.at(places).frontiers()
    assert Tracker.at(places).read_json(run.run_id, "frontier.json")["points"] == table["points"]
    report = collect_report(places)
    assert "methods compared" in pages.markdown(report)
    page = pages.html(report)
    assert "Methods compared" in page and page.count("accuracy over latency") == 1
    # The stages that it found are those that `adafocus train` makes: nothing is trained twice.
    finished = sorted(path.parent.name.split("-")[0] for path in tmp_path.glob("*/meta.json"))
    assert finished == sorted([*STAGES, "joint", "unified"])
    (folder,) = tmp_path.glob("finetune-*")
    metas = [checkpoint.read_meta(path.parent) for name in STAGES for path in tmp_path.glob(f"{name}-*/meta.json")]
    assert training_cost(folder, places).minutes == pytest.approx(sum(meta.seconds for meta in metas) / 60)


def test_a_contestant_is_a_recipe_with_settings() -> None:
    contestant = Contestant.parse("demo:ppo.gamma=0.5:model.patch_size=36")
    assert (contestant.recipe, contestant.config.ppo.gamma, contestant.config.model.patch_size) == ("demo", 0.5, 36)
    for text, said in {"demo:ppo.gamma": "is not of the form RECIPE", "dem": "nearest known one is 'demo'"}.items():
        with pytest.raises(UserError, match=said):
            Contestant.parse(text)
