"""A benchmark as users start it: of a trial whose initial weights are gone, of each stage, of the best of a sweep."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from adafocus import checkpoint
from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.inference.predictor import AdaFocusPredictor
from adafocus.models.backbones import BACKBONES
from adafocus.training.reports import Options
from helpers.tiny import STAGES
from pipelines.benchmarks.benchmark import measure_checkpoint
from pipelines.benchmarks.benchmark_logger import log_benchmark
from pipelines.benchmarks.options import BenchmarkOptions
from pipelines.benchmarks.run import run_benchmarks
from pipelines.cli.main import main
from pipelines.cli.values import read_config
from pipelines.paths import Places
from pipelines.ray_runtime.session import ray_session
from pipelines.reporting import pages
from pipelines.reporting.benchmark_result import BenchmarkResult
from pipelines.reporting.collect import collect_report
from pipelines.reporting.tables import print_results
from pipelines.sweeps.stages.storage import list_folders
from pipelines.tracking import metric_names
from pipelines.tracking.client import Tracker
from pipelines.tracking.models.checkpoints import SelectedCheckpoint
from pipelines.training.train import train_stages
from preprocessing.schema import UserError

CPU = Options(device="cpu")


@pytest.fixture(scope="module")
def places(tiny_config: Config, synthetic_shards: str, tmp_path_factory: pytest.TempPathFactory) -> Places:
    """All stages of a trial that began with weights of a file, which is gone."""
    places = Places.of(synthetic_shards, tmp_path_factory.mktemp("runs"))
    file = places.runs / "initial.pth"
    torch.save(BACKBONES[tiny_config.model.glancer](10).state_dict(), file)
    short = {f"{stage}.epochs": 1 for stage in STAGES}
    config = override(tiny_config, {"model.glancer_weights": str(file), **short})
    train_stages(config, places, CPU, lambda row: None)
    file.unlink()
    return places


def made(places: Places, stage: str) -> Path:
    (folder,) = places.runs.glob(f"{stage}-*")
    return folder


@pytest.fixture
def cli(
    places: Places, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """cli(...) runs `adafocus benchmark ...` on the shards -> exit status, standard output and error."""

    def run(*words: object, runs: Path = places.runs) -> tuple[int, str, str]:
        argv = ["adafocus", "benchmark", "--shards", places.shards, "--runs", runs, "--device", "cpu", *words]
        monkeypatch.setattr(sys, "argv", [str(word) for word in argv])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.mark.slow
def test_the_file_of_initial_weights_is_not_needed_again(places: Places) -> None:
    result = measure_checkpoint(made(places, "finetune"), replace(places, runs=Path("elsewhere")), CPU)
    assert [row.key() for row in result.rows] == ["policy", "random", "centre", "oracle", "warmup_random", "glancer"]
    run = Tracker.at(places).run("synthetic", "trial", "untagged", sweep="", trial="untagged")
    run.client.set_tag(run.run_id, "adafocus.checkpoint", made(places, "finetune").name)
    assert {stored.users for stored in list_folders(places)} == {("untagged",)}
    old = made(places, "finetune").with_name("old")  # as records were before they named their stages
    shutil.copytree(made(places, "finetune"), old)
    meta = json.loads((old / checkpoint.META).read_text())
    (old / checkpoint.META).write_text(json.dumps({key: value for key, value in meta.items() if key != "stages"}))
    rows = measure_checkpoint(old, places, CPU).rows
    assert [row.key() for row in rows] == ["policy", "random", "centre", "oracle", "glancer"]


def test_every_stage_names_those_that_it_came_from(places: Places) -> None:
    folders = [made(places, stage).name for stage in STAGES]
    for number, name in enumerate(folders, start=1):
        assert checkpoint.read_meta(places.runs / name).stages == folders[:number]


def test_a_weights_file_is_found_from_other_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    changes = ["model.glancer_weights=w/a.pth", "model.focuser_weights=none"]
    model = read_config("demo", changes, False).model
    assert (model.glancer_weights, model.focuser_weights) == (str(tmp_path / "w" / "a.pth"), "none")


@pytest.mark.slow
def test_rows_of_parts_that_are_not_trained_are_left_out(
    places: Places, cli: Callable[..., tuple[int, str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    status, out, _ = cli("--checkpoint", made(places, "warmup"), "--explain", 1, "--json")
    (found,) = json.loads(out)
    assert status == 0 and [row["patches"] for row in found["rows"]] == ["random", "centre", "oracle", "glancer"]
    assert "policy (AdaFocus): left out, for after warmup the policy is not trained" in caplog.messages
    assert found["facts"]["stage"] == "warmup" and found["facts"]["gflops.policy"] == 0
    tracker = Tracker.at(places)
    (run,) = [each for each in tracker.find("benchmark") if each.info.run_id == found["run_id"]]
    artifacts = {item.path for item in tracker.client.list_artifacts(run.info.run_id)}
    assert "gallery.html" in artifacts and "patches.png" not in artifacts
    (measured,) = [each for each in collect_report(places).benchmarks if each.run_id == found["run_id"]]
    assert measured.title == f"{made(places, 'warmup').name}, after warmup"
    assert measured.score == found["rows"][0]["top1"]
    assert len(measure_checkpoint(made(places, "ppo"), places, CPU).rows) == 6


def test_what_has_nothing_trained_to_measure_is_refused(
    places: Places, cli: Callable[..., tuple[int, str, str]]
) -> None:
    status, out, err = cli("--checkpoint", made(places, "pretrain"))
    assert (status, out) == (2, "") and len(err.strip().splitlines()) == 1
    assert "of stage pretrain, after which its classifier still holds initial weights" in err
    with pytest.raises(UserError, match=r"its policy and classifier still hold initial .* stage ppo or finetune$"):
        AdaFocusPredictor(made(places, "pretrain"))
    with pytest.raises(UserError, match=r"of stage warmup, .* its policy still holds .*, or patches random or centre"):
        AdaFocusPredictor(made(places, "warmup"))
    AdaFocusPredictor(made(places, "warmup"), patches="centre")
    AdaFocusPredictor(made(places, "ppo"))


@pytest.fixture(scope="module")
def swept(places: Places) -> Places:
    """Three finished trials of a sweep, with scores that order them b, c, a."""
    tracker = Tracker.at(places)
    parent = tracker.run("synthetic", "sweep", "s", sweep="s")
    for name, score in {"a": 10.0, "b": 30.0, "c": 20.0}.items():
        folder = places.runs / f"copy-{name}"
        shutil.copytree(made(places, "finetune"), folder)
        run = tracker.run("synthetic", "trial", name, parent=parent.run_id, sweep="s", trial=name)
        run.log_params({"recipe": "demo"})
        run.log_metrics({"finetune/val_top1": score}, step=4)
        run.set_result(folder, "", "top1")
        run.log_artifact(folder, "model")
        run.finish()
    return places


def test_a_split_can_be_chosen(places: Places, cli: Callable[..., tuple[int, str, str]]) -> None:
    """It is a run of its own beside the usual split's, and an unknown one is refused."""
    warmup = made(places, "warmup")
    usual, train = (
        json.loads(cli("--checkpoint", warmup, "--json", *words)[1])[0] for words in ((), ("--split", "train"))
    )
    assert (usual["facts"]["split"], train["facts"]["split"]) == ("val", "train")
    assert (usual["facts"]["clips"], usual["run_id"]) != (train["facts"]["clips"], train["run_id"])
    status, _, err = cli("--checkpoint", warmup, "--split", "tset")
    assert status == 2 and "tset" in err and "train, val" in err


def test_the_best_of_a_sweep_are_measured_into_one_table(
    swept: Places, cli: Callable[..., tuple[int, str, str]]
) -> None:
    status, out, _ = cli("--sweep", "s", "--best", 2, "--batch-size", 4)
    assert status == 0 and out.count("patches") == 2
    threads = torch.get_num_threads()
    assert f"synthetic: 10 clips of split val, cpu, {threads} thread{'s' * (threads > 1)}, batch 4" in out
    assert [line.strip() for line in out.splitlines() if line.startswith("s ")] == ["s b", "s c"]
    results = collect_report(swept, "s")
    assert sorted(each.name for each in results.benchmarks) == ["s b", "s c"]
    (section,) = results.sections
    assert len({each.run_id for each in section.benchmarks}) == 2
    text, page = pages.markdown(results), pages.html(results)
    assert text.count("| trial | patches |") == 1 == page.count("<th>trial</th><th>patches</th>")
    assert len([line for line in text.splitlines() if line.startswith(("| s b |", "| s c |"))]) == 12
    assert len(pages._comparison(section, ())) == 7  # all rows of the best, of the other the policy's
    status, _, err = cli("--checkpoint", made(swept, "finetune"), "--best", 2)
    assert status == 2 and "--best 2 is of a sweep: give --sweep" in err


@pytest.mark.ray
@pytest.mark.slow
def test_it_can_run_on_a_machine_of_a_cluster(swept: Places, cli: Callable[..., tuple[int, str, str]]) -> None:
    """The same table, measured and logged by a worker; its errors are one line here."""
    status, _, err = cli("--sweep", "s", "--gpus-per-worker", 1)
    assert status == 2 and "give --ray-address" in err
    with ray_session(None):
        status, out, err = cli("--sweep", "s", "--ray-address", "local", "--json")
        assert status == 0, err
        status, _, err = cli("--sweep", "s", "--ray-address", "local", "--gpus-per-worker", 1)
        assert status == 2 and "no machine of the cluster has 1 CPUs and 1 GPUs" in err
        status, _, err = cli("--checkpoint", made(swept, "pretrain"), "--ray-address", "local")
        assert status == 2 and "of stage pretrain, after which its classifier" in err.strip().splitlines()[-1]
    (found,) = json.loads(out)
    (trial,) = [run for run in Tracker.at(swept).find("trial", sweep="s") if run.info.run_name == "b"]
    assert found["trial"] == trial.info.run_id
    here = measure_checkpoint(swept.runs / "copy-b", swept, CPU)
    scores = ("top1", "top5", "map", "gflops", "parameters", "memory_mb")
    for row, other in zip(found["rows"], here.table(), strict=True):
        assert {key: row[key] for key in scores} == pytest.approx({key: other[key] for key in scores})
    assert found["run_id"] in {each.info.run_id for each in Tracker.at(swept).find("benchmark")}


def test_a_device_that_is_not_there_is_one_line(places: Places, cli: Callable[..., tuple[int, str, str]]) -> None:
    status, _, err = cli("--checkpoint", made(places, "finetune"), "--device", "gpu")
    assert status == 2 and "adafocus: there is no device 'gpu' here" in err and len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_compiled_networks_are_told_apart(places: Places) -> None:
    """Same predictions up to rounding; no time of compiling in any number; a name and an MLflow run of their own."""
    folder = made(places, "finetune")
    plain, fast = (
        measure_checkpoint(folder, places, CPU, BenchmarkOptions(batch_size=4, compile=compile))
        for compile in (False, True)
    )
    for row, other in zip(plain.rows, fast.rows, strict=True):
        assert (other.method, other.key()) == (f"{row.method}, compiled", f"{row.key()}_compiled")
        assert other.compiled and other.memory_mb is None and metric_names.explain(f"bench/{other.key()}/top1")
        logits, compiled = plain.predictions[row.key()].logits_NTK, fast.predictions[other.key()].logits_NTK
        torch.testing.assert_close(logits, compiled, rtol=1e-3, atol=1e-4)
        assert other.latency_ms < 1000, "it takes seconds to compile"
    runs = [
        log_benchmark(result, SelectedCheckpoint(folder, name="x"), places).run_id for result in (plain, fast, plain)
    ]
    assert runs[0] == runs[2] != runs[1]
    console = Console(width=160, record=True)
    print_results([BenchmarkResult("x", runs[1], "", fast.facts, fast.table(), {})], console)
    printed = console.export_text()
    assert "policy (AdaFocus), compiled" in printed
    (heading,) = [line.split() for line in printed.splitlines() if "top-1" in line and "GFLOPs" in line]
    assert "ms" in heading and "MB" not in heading  # which nothing has


def test_the_store_is_opened_before_anything_is_measured(synthetic_shards: str, tmp_path: Path) -> None:
    places = Places.of(synthetic_shards, tmp_path)
    tracker = Tracker.at(places)
    tracker.client.delete_experiment(tracker.experiment("synthetic"))
    with pytest.raises(UserError, match=r"'synthetic' of .* was deleted"):
        run_benchmarks([SelectedCheckpoint(tmp_path / "none")], places, CPU, BenchmarkOptions(), None)
