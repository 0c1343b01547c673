"""`adafocus calibrate`, `benchmark --exit` and `predict --budget` on one model, as a user types them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from adafocus import checkpoint
from adafocus.evaluation import multiply_adds
from adafocus.training.calibrate import calibrate
from adafocus.training.reports import Options
from pipelines.cli.main import main
from pipelines.paths import Places
from pipelines.reporting import pages
from pipelines.reporting.collect import collect_report
from pipelines.serving.pyfunc_model import VideoModel
from pipelines.tracking import metric_names
from pipelines.tracking.client import Tracker

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def places(checkpoints: dict[str, Path], synthetic_shards: str, tmp_path: Path) -> Places:
    """A run `mine` whose model acts per frame, and beside it a model that sees the whole clip."""
    places = Places.of(synthetic_shards, tmp_path / "runs")
    folder = shutil.copytree(checkpoints["frame"], places.runs / "finetune-0123456789ab")
    shutil.copytree(checkpoints["clip"], places.runs / "finetune-ba9876543210")
    run = Tracker.at(places).run("synthetic", "trial", "mine", sweep="", trial="mine")
    run.log_artifact(folder, "model")
    run.set_result(folder, checkpoint.read_meta(folder).digest, "top1")
    run.finish()
    return places


@pytest.fixture
def cli(places: Places, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """cli(verb, ...) -> exit status, standard output and error."""

    def run(verb: str, *words: object) -> tuple[int, str, str]:
        argv = ["adafocus", verb, *words, "--runs", places.runs, "--shards", places.shards, "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", [str(word) for word in argv])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.mark.slow
def test_from_thresholds_to_the_report(places: Places, cli: Cli, synthetic_root: Path) -> None:
    status, out, err = cli("calibrate", "--run", "mine")
    assert status == 0, err
    assert "thresholds for" in out and "from 24 clips that it was trained on" in out
    tracker = Tracker.at(places)
    (trial,) = tracker.trials()
    logged = tracker.client.download_artifacts(trial.run_id, "model/meta.json")
    assert json.loads(Path(logged).read_text())["exits"]["num_clips"] == 24

    status, out, err = cli("benchmark", "--run", "mine", "--exit", "--json")
    assert status == 0, err
    (found,) = json.loads(out)
    points, whole = found["exits"], found["rows"][0]
    assert [point["percent"] for point in points] == list(range(25, 101, 5))
    for name in ("top1", "top5", "map", "gflops"):
        assert points[-1][name] == pytest.approx(whole[name])
    assert points[-1]["frames"] == 4 and all(point["latency_ms"] > 0 < point["videos_per_s"] for point in points)
    assert all(point["gflops"] == pytest.approx(point["pro_rata_gflops"]) for point in points)
    run = tracker.open(found["run_id"])
    assert run.curve("exit/gflops") == {point["percent"]: pytest.approx(point["gflops"]) for point in points}
    assert all(metric_names.explain(name) for name in run.metric_names() if name.startswith("exit/"))

    report = collect_report(places)
    assert report.benchmarks[0].exits == points
    text, page = pages.markdown(report), pages.html(report)
    for shown in (text, page):
        assert "early exit" in shown and "24 clips that it was trained on" in shown
    assert text.count("| 100 % |") == 1 and "measured here, early exit" in page

    budget = 0.7 * multiply_adds.exit_costs(checkpoint.load_model(places.runs / trial.checkpoint)[0].config, 10)[-1]
    status, out, err = cli("predict", synthetic_root / "val", "--run", "mine", "--budget", budget, "--json")
    assert status == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert {row["frames_seen"] for row in rows} <= {1, 2, 3, 4} and len(rows) == 10
    mean = sum(row["gflops"]["total"] for row in rows) / 10
    assert mean == pytest.approx(points[[point["percent"] for point in points].index(70)]["gflops"])
    assert f"{mean:.4g} GFLOPs per video in the mean" in err


def test_a_model_that_sees_the_whole_clip_has_no_exits(
    places: Places, cli: Cli, synthetic_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = places.runs / "finetune-ba9876543210"
    for words in (("calibrate",), ("predict", synthetic_root / "val", "--budget", 1.0)):
        status, _, err = cli(*words, "--checkpoint", folder)
        assert status == 2 and "early exit saves nothing with this model" in err and len(err.strip().splitlines()) == 1
    status, out, _ = cli("benchmark", "--checkpoint", folder, "--exit", "--json")
    (found,) = json.loads(out)
    assert status == 0 and found["exits"] == [] and found["rows"]
    assert any("early exit saves nothing" in message for message in caplog.messages)


def test_a_stage_without_a_policy_has_no_curve(places: Places, cli: Cli, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    folder = places.runs / "finetune-0123456789ab"
    checkpoint.write_meta(folder, replace(checkpoint.read_meta(folder), stage="warmup"))
    status, out, _ = cli("benchmark", "--checkpoint", folder, "--exit", "--json")
    assert status == 0 and json.loads(out)[0]["exits"] == []
    assert "early exit: left out, for after warmup there is no policy" in caplog.messages


def test_the_model_that_mlflow_serves_takes_a_budget(
    checkpoints: dict[str, Path], synthetic_shards: str, synthetic_root: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoints["frame"], tmp_path / "finetune-served"))
    found = calibrate(folder, synthetic_shards, Options(device="cpu"))
    model = VideoModel()
    model.load_context(SimpleNamespace(artifacts={"checkpoint": str(folder)}))
    table = pd.DataFrame({"path": [str(path) for path in sorted((synthetic_root / "val").rglob("*.mp4"))]})
    spent = {budget: model.predict(None, table, {"budget": budget})["gflops"] for budget in (found.budgets[2], 0.0)}
    assert spent[found.budgets[2]].mean() < spent[0.0].mean() and spent[0.0].tolist() == pytest.approx(
        [found.costs[-1]] * 10
    )
    assert model.predict(None, table)["gflops"].tolist() == spent[0.0].tolist(), "a budget is of one request"
