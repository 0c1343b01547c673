"""The report, from a store whose contents are known: every number is there, none is added, nothing is left out."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipelines.paths import Places
from pipelines.recipes import RECIPES
from pipelines.reporting import pages
from pipelines.reporting.collect import collect_report
from pipelines.reporting.published import published_on
from pipelines.reporting.report import Report
from pipelines.tracking.client import Tracker
from preprocessing.schema import UserError

NASTY = "<script>alert(1)</script> | x"


def row(method: str, top1: float, gflops: float) -> dict[str, object]:
    fixed = {"top5": 99.0, "map": 61.25, "hit_rate": None, "videos_per_s": 12.0, "latency_ms": 34.5, "memory_mb": 5.4}
    return {"method": method, "patches": "policy", "top1": top1, "gflops": gflops, **fixed}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    """A sweep on ssv1 with a trial of each ending, two of which share a stage; one benchmark; a failed single trial."""
    runs = tmp_path_factory.mktemp("runs")
    places = Places.of("shards", runs, f"sqlite:///{runs}/mlflow.db")
    tracker = Tracker.at(places)
    parent = tracker.run("ssv1", "sweep", "s", sweep="s")
    parent.log_params({"recipe": "ssv1-144", "space.ppo.gamma": "0.5, 0.7"})
    parent.log_metrics({"reuse/hours_saved": 1.5})
    trials = []
    for number, (name, score) in enumerate([("gamma=0.5", 41.5), ("gamma=0.7", 42.5), (NASTY, None), ("pruned", None)]):
        trial = tracker.run("ssv1", "trial", name, parent=parent.run_id, sweep="s", trial=str(number))
        trial.log_metrics({"warmup/seconds": 3600.0}, step=1, time_ms=1000)  # trained once, used by all
        if score is not None:
            trial.log_metrics({"ppo/seconds": 1800.0}, step=2, time_ms=2000 + number)  # each its own
            trial.log_metrics({"finetune/val_top1": score}, step=3)
            trial.set_result(Path(f"finetune-{number}"), "", "top1")
            trial.finish()
        elif name == "pruned":
            trial.set_pruned("by asha after epoch 2", 2)
            trial.finish()
        else:
            trial.finish("FAILED", "NonFiniteLossError: the loss is nan")
        trials.append(trial)
    parent.finish("FAILED")
    bench = tracker.run("ssv1", "benchmark", "benchmark s gamma=0.7", trial=trials[1].run_id, checkpoint="finetune-1")
    facts = {"dataset": "ssv1", "clips": 7, "split": "val", "device": "cpu", "batch_size": 2, "metric": "top1"}
    rows = [row("policy (AdaFocus)", 42.5, 23.5), row("random, same weights", 39.75, 23.49)]
    online = {"policy": [{"frames": 1, "gflops": 12.0, "top1": 30.0}, {"frames": 2, "gflops": 23.5, "top1": 42.5}]}
    bench.client.log_dict(
        bench.run_id, {"facts": {**facts, "recipe": "ssv1-144"}, "rows": rows, "online": online}, "table.json"
    )
    bench.finish()
    tracker.run("ssv1", "benchmark", "benchmark killed", trial=trials[0].run_id, checkpoint="finetune-0")
    tracker.run("folder", "trial", "mine", sweep="", trial="mine").finish("FAILED", "OutOfMemoryError: 3 GiB")
    return places


@pytest.fixture(scope="module")
def collected(places: Places) -> Report:
    return collect_report(places)


def test_a_sweep_has_all_its_trials(collected: Report) -> None:
    (section,) = [each for each in collected.sections if each.sweeps]
    (sweep,) = section.sweeps
    assert [(trial.name, trial.outcome, trial.score) for trial in sweep.trials[:2]] == [
        ("gamma=0.7", "finished", 42.5),
        ("gamma=0.5", "finished", 41.5),
    ]
    rest = {trial.outcome: (trial.reason, trial.reached) for trial in sweep.unfinished}
    assert rest == {
        "failed": ("NonFiniteLossError: the loss is nan", "warmup"),
        "pruned": ("by asha after epoch 2", "warmup"),
    }
    assert sweep.stage_hours == {"warmup": pytest.approx(1), "ppo": pytest.approx(1)}
    assert sweep.hours_without_sharing == pytest.approx(4 + 1)
    assert (sweep.metric, sweep.reuse, sweep.space) == ("top-1", {"hours_saved": 1.5}, {"ppo.gamma": "0.5, 0.7"})
    assert [trial.reason for trial in collected.unfinished] == ["OutOfMemoryError: 3 GiB"]


def test_a_benchmark_that_was_killed_is_named(collected: Report) -> None:
    assert collected.broken == ["benchmark killed: it left no table; was it killed? Measure again"]
    assert "Missing: benchmark killed" in pages.markdown(collected) and "Missing: benchmark killed" in pages.html(
        collected
    )


def test_what_was_not_run_is_missing_and_has_no_number(collected: Report) -> None:
    missing = {section.dataset: section.missing for section in collected.sections}
    assert [text.split(":")[0] for text in missing["ssv1"]] == [
        name for name in RECIPES if name.startswith("ssv1-") and name != "ssv1-144"
    ]
    assert {"activitynet-128:", "activitynet-v2-128:"} <= {text.split()[0] for text in missing["activitynet"]}
    assert all("not run here: needs the data set" in t for t in missing["ssv2"])
    assert any("the paper's own figure: none" in text for text in missing["fcvid"])


def test_markdown_has_every_measured_number_and_no_other(collected: Report) -> None:
    text = pages.markdown(collected)
    tables = [line for line in text.splitlines() if line.startswith("|") and "here" in line]
    assert len(tables) == 2
    numbers = {cell.strip() for line in tables for cell in line.split("|")[2:4]}
    assert numbers == {"42.5", "23.5", "39.8"}
    own = [line for line in text.splitlines() if line.startswith("| policy (AdaFocus)")]
    assert own == ["| policy (AdaFocus) | 42.5 | 61.2 | - | - | 23.5 | 12 | 34.5 | 5 |"]
    papers = [
        each for each in published_on("activitynet") if each.family == "AdaFocus"
    ]  # nothing of ours to compare with
    for published in (*published_on("ssv1"), *papers):
        shown = f"{published.accuracy:g} [{published.accuracy_mark}] | {published.gflops:g} [{published.gflops_mark}]"
        assert shown in text
    widths: dict[str, set[int]] = {}
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        widths[block] = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
    assert len(widths) >= 5 and all(len(width) == 1 for width in widths.values()), "a cell breaks its table"


class Outside(HTMLParser):
    """Collects what a page would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "xlink:href")]


def test_the_page_needs_no_network_and_runs_nothing(collected: Report) -> None:
    text = pages.html(collected)
    page = Outside()
    page.feed(text)
    assert all(link.startswith("#") or link == "sweep-ssv1-s.html" for link in page.links)
    assert "script" not in page.tags and page.tags.count("svg") == 6  # five benchmarks, and ssv1's online curve
    assert "&lt;script&gt;" in text and "prefers-color-scheme: dark" in text
    assert "42.5" in text and "NonFiniteLossError: the loss is nan" in text and "xmlns" in text


def test_files_and_choice_of_a_sweep(places: Places, tmp_path: Path) -> None:
    one = collect_report(places, "s")
    assert [section.dataset for section in one.sections] == ["ssv1"] and one.sections[0].missing == []
    paths = pages.write_pages(one, tmp_path / "new" / "RESULTS.md")
    assert [path.name for path in paths] == ["RESULTS.md", "RESULTS.html", "sweep-ssv1-s.html"]
    assert all(path.stat().st_size for path in paths)
    assert "](sweep-ssv1-s.html)" in paths[0].read_text() and 'href="sweep-ssv1-s.html"' in paths[1].read_text()


def test_a_sweep_has_a_page_of_all_its_trials(collected: Report) -> None:
    (sweep,) = [each for section in collected.sections for each in section.sweeps]
    shown = {trial.name: trial for trial in sweep.page.trials}
    assert {name: trial.outcome for name, trial in shown.items()} == {each.name: each.outcome for each in sweep.trials}
    assert shown["gamma=0.7"].score == 42.5 and shown[NASTY].reason == "NonFiniteLossError: the loss is nan"
    first, *others = sweep.page.trials  # in the order in which they ended: the first has trained what all share
    assert first.compute == pytest.approx(1.5) and sum(each.compute for each in sweep.page.trials) == pytest.approx(2)
    assert all(each.link.startswith("http://127.0.0.1:5000/#/experiments/") for each in (first, *others))
    assert sweep.page.needs_dashboard and "too few" in sweep.page.importance.warning


def test_runs_that_nobody_closed_are_stale_after_a_while(tmp_path: Path) -> None:
    places = Places.of("", tmp_path, f"sqlite:///{tmp_path}/mlflow.db")
    tracker = Tracker.at(places)
    parent = tracker.run("folder", "sweep", "s", sweep="s")
    now = int(time.time() * 1000)
    for name, later_min in (("killed", 1), ("alive", 20)):
        trial = tracker.run("folder", "trial", name, parent=parent.run_id, sweep="s", trial=name)
        trial.log_metrics({"ppo/loss": 1.0}, time_ms=now)
        trial.log_metrics({"system/host/cpu_utilization_percentage": 50.0}, time_ms=now + later_min * 60_000)
    unwatched = tracker.run("folder", "trial", "unwatched", parent=parent.run_id, sweep="s", trial="unwatched")
    unwatched.log_metrics({"system/host/cpu_utilization_percentage": 50.0}, time_ms=now)
    unwatched.log_metrics({"ppo/loss": 1.0}, time_ms=now + 20 * 60_000)  # after the store has once not answered

    def outcomes(**options: float) -> tuple[str, dict[str, str]]:
        (section,) = [each for each in collect_report(places, "s", **options).sections if each.sweeps]
        return section.sweeps[0].status, {trial.name: trial.outcome for trial in section.sweeps[0].trials}

    def at(minute: float, **options: float) -> tuple[str, dict[str, str]]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time", lambda: now / 1000 + minute * 60)
            return outcomes(**options)

    alive = {"alive": "running", "unwatched": "running"}
    assert at(9) == ("running", {"killed": "running", **alive})
    assert at(15) == ("running", {"killed": "stale", **alive})  # a sweep is heard of by its trials
    assert at(15, stale_after_min=60) == ("running", {"killed": "running", **alive})
    assert at(31) == ("stale", dict.fromkeys(("killed", "alive", "unwatched"), "stale"))
    for trial in tracker.unfinished("trial", sweep="s"):
        trial.finish()
    parent.finish()
    assert at(99) == ("finished", dict.fromkeys(("killed", "alive", "unwatched"), "finished"))


def test_an_empty_store_is_said(tmp_path: Path) -> None:
    places = Places.of("", tmp_path, f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(UserError, match="holds no trial yet"):
        collect_report(places)
    secret = Places("", tmp_path, "postgresql://me:secret@host/db")
    assert secret.store == "postgresql://host/db"
