"""The store: many processes at once, runs that are continued, and more runs than a page holds."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from pipelines.tracking import reach
from pipelines.tracking.client import Tracker
from preprocessing.schema import UserError

ROOT = Path(__file__).parents[3]
WRITER = """
import os
import sys
from pathlib import Path
from pipelines.tracking.client import Tracker
number, runs = 0, Path(sys.argv[1])
children = []
for number in range(8):
    child = os.fork()  # eight processes for the price of one import
    if child == 0:
        break
    children.append(child)
else:
    sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
run = Tracker(runs).run("d", "trial", f"trial {number}", sweep="s", trial=str(number))
run.log_params({f"p.{key}": f"{number}-{key}" for key in range(150)})
for step in range(1, 31):
    run.log_metrics({f"warmup/{name}": number + step / 100 for name in ("loss", "accuracy", "seconds")}, step, step)
run.client.log_dict(run.run_id, {"number": number}, "table.json")
run.finish()
"""


@pytest.mark.slow
def test_eight_processes_that_open_a_new_store_at_once_lose_nothing(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, timeout=240).returncode == 0
    tracker = Tracker(tmp_path)
    found = tracker.find("trial", sweep="s")
    assert sorted(run.info.run_name for run in found) == [f"trial {number}" for number in range(8)]
    for run in found:
        number = int(run.data.tags["adafocus.trial"])
        assert run.info.status == "FINISHED"
        for key in range(150):
            assert run.data.params[f"p.{key}"] == f"{number}-{key}"
        opened = tracker.open(run.info.run_id)
        for name in ("loss", "accuracy", "seconds"):
            assert opened.curve(f"warmup/{name}") == {step: number + step / 100 for step in range(1, 31)}
        assert tracker.read_json(run.info.run_id, "table.json") == {"number": number}


def test_a_run_is_found_again_and_says_with_what_it_goes_on(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tracker.run("d", "trial", "it's one", sweep="it's", trial="t")
    first.finish("KILLED")
    monkeypatch.setattr("pipelines.tracking.provenance.commit", lambda: "another")
    again = tracker.run("d", "trial", "it's one", sweep="it's", trial="t")
    assert again.run_id == first.run_id
    (found,) = tracker.find("trial", sweep="it's")
    assert found.info.status == "RUNNING" and found.data.params["git_commit"] == first.param("git_commit") != "another"
    assert "another" in found.data.tags["adafocus.continued_with"]
    with pytest.raises(UserError, match="both kinds of quotes"):
        tracker.find("trial", sweep="'\"")


def test_more_runs_than_a_page_are_found(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        tracker.run("pages", "preprocess", str(number), number=str(number))
    whole = tracker.client.search_runs

    def pages_of_two(experiments: list[str], query: str, max_results: int, page_token: str | None) -> object:
        return whole(experiments, query, max_results=2, page_token=page_token)

    monkeypatch.setattr(tracker.client, "search_runs", pages_of_two)
    assert sorted(str(run.info.run_name) for run in tracker.find("preprocess")) == ["0", "1", "2", "3", "4"]


def test_an_experiment_that_was_deleted_is_named_and_comes_back(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    number = tracker.experiment("gone")
    tracker.client.delete_experiment(number)
    with pytest.raises(UserError, match=rf"'gone' of .* was deleted: .*restore --experiment-id {number}"):
        tracker.run("gone", "preprocess", "preprocess")
    tracker.client.restore_experiment(number)
    assert tracker.run("gone", "preprocess", "preprocess").experiment_id == number


def test_runs_say_which_command_made_them_and_who(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "alice")
    tracker.run("d", "sweep", "source", sweep="source")
    tracker.run("d", "trial", "in a sweep", sweep="source", trial="source in")
    tracker.run("d", "trial", "alone", sweep="", trial="source alone")
    tracker.run("d", "benchmark", "b", trial="source")

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nobody)
    tracker.run("d", "preprocess", "p", digest="source")
    found = [
        *tracker.find("sweep", sweep="source"),
        *(run for name in ("source in", "source alone") for run in tracker.find("trial", trial=name)),
        *tracker.find("benchmark", trial="source"),
        *tracker.find("preprocess", digest="source"),
    ]
    verbs = ["tune", "tune", "train", "benchmark", "preprocess"]
    assert [run.data.tags["mlflow.source.name"] for run in found] == [f"adafocus {verb}" for verb in verbs]
    assert [run.data.tags["mlflow.user"] for run in found] == ["alice"] * 4 + [str(os.getuid())]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks a server twice, and waits half a second for its answer."""
    monkeypatch.setattr(reach, "WAITS_S", (0.01,))
    monkeypatch.setattr(reach, "ANSWER_S", 0.5)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://me:hunter2@no.such.host.invalid:5000", "http://["])
def test_a_server_that_is_not_there_is_said_in_seconds(address: str, tmp_path: Path, impatient: None) -> None:
    """MLflow itself would ask again for four minutes."""
    started = time.monotonic()
    with pytest.raises(UserError, match=r"the MLflow server http://.* does not answer: ") as raised:
        Tracker(tmp_path, address)
    assert time.monotonic() - started < 10 and "hunter2" not in str(raised.value)


def test_a_server_that_says_nothing_keeps_no_other_store_waiting(tmp_path: Path, impatient: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(1) as pool:
        address = "http://{}:{}".format(*silent.getsockname())
        asking = pool.submit(Tracker, tmp_path, address)
        with FileLock(tmp_path / ".mlflow.lock", timeout=0):
            assert not asking.done()
        with pytest.raises(UserError, match=r"does not answer: nothing came within 0\.5 s"):
            asking.result()
    with socket.create_server(("127.0.0.1", 0)) as secure, pytest.raises(UserError, match="does not answer"):
        Tracker(tmp_path, "https://{}:{}".format(*secure.getsockname()))


def test_a_database_that_cannot_be_opened_or_written_is_said_at_once(tmp_path: Path, tracker: Tracker) -> None:
    """MLflow itself would try for a minute and a half; what is written comes after hours of work."""
    started = time.monotonic()
    (tmp_path / "file").write_text("no folder")
    for path in (tmp_path, tmp_path / "file" / "x.db", Path("/proc/x.db"), tmp_path / "file"):
        with pytest.raises(UserError, match=rf"the MLflow store sqlite:///{path} cannot be used: "):
            Tracker(tmp_path, f"sqlite:///{path}")
    assert time.monotonic() - started < 10
    path = tracker.uri.removeprefix("sqlite:///")
    reach.check_writable(tracker.uri)
    for check, words in ((reach.check_reach, ""), (reach.check_writable, "attempt to write a readonly database")):
        with pytest.raises(UserError, match=words) if words else contextlib.nullcontext():
            check(f"sqlite:///file:{path}?mode=ro&uri=true")
