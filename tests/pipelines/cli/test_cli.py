"""The command line as a user meets it: help, and one clear line for what cannot work."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from pipelines import version
from pipelines.cli.main import main
from pipelines.tracking.client import Tracker
from pipelines.tracking.provenance import provenance

VERBS = ("runs", "preprocess", "verify", "inspect", "train", "tune", "benchmark", "report", "recipes", "dashboard")

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """cli("verb", ...) -> exit status, standard output, standard error; works in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("ADAFOCUS_RUNS", raising=False)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["adafocus", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_defaults(verb: str, cli: Cli) -> None:
    status, out, _ = cli(verb, "--help")
    assert status == 0 and "Usage:" in out
    assert verb in ("verify", "inspect", "recipes", "dashboard", "runs") or "default" in out or "[" in out


@pytest.mark.parametrize(
    ("verb", "text"),
    [
        (("benchmark",), "Measure on this split [the one that training was evaluated on]."),
        (("preprocess",), "train,val,test [all]."),
        (("runs", "list"), ""),
    ],
)
def test_help_keeps_what_stands_in_brackets(verb: tuple[str, ...], text: str, cli: Cli) -> None:
    _, out, _ = cli(*verb, "--help")
    words = " ".join(out.replace("│", " ").split())
    assert text in words and "\\[" not in words and " ." not in words


def test_help_groups_the_verbs(cli: Cli) -> None:
    _, out, _ = cli("--help")
    groups = re.split(r"╭─ (\w+)", out)
    verbs = {
        name: re.findall(r"^│ ([\w-]+) ", text, re.MULTILINE)
        for name, text in zip(groups[1::2], groups[2::2], strict=True)
    }
    assert verbs["Data"] == ["preprocess", "verify", "inspect"]
    assert {"recipes", "train", "tune"} <= set(verbs["Training"])
    assert {"benchmark", "report", "dashboard", "runs"} <= set(verbs["Results"])
    assert {"predict", "export", "import-checkpoint", "export-checkpoint"} <= set(verbs["Models"])


def test_help_loads_no_large_package() -> None:
    loaded = "import sys, pipelines.cli.main; print(*{'torch', 'ray', 'mlflow', 'sklearn'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout == "\n"


def test_version_names_the_commit_that_runs_log(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    status, out, _ = cli("--version")
    assert status == 0 and out == f"adafocus {metadata.version('adafocus')} (commit {provenance()['git_commit']})\n"
    monkeypatch.setattr(version, "ROOT", tmp_path)  # as on a machine that was sent the files alone
    monkeypatch.setenv("ADAFOCUS_COMMIT", "0123abc")
    assert "(commit 0123abc)" in cli("--version")[1] and provenance()["git_commit"] == "0123abc"


def test_shells_complete_verbs(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for words, completed in (("adafocus tr", "train"), ("adafocus runs ", "list\nshow\nprune")):
        monkeypatch.setenv("_ADAFOCUS_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
        status, out, _ = cli()
        assert status == 0 and out.strip() == completed


TRAIN = ("--recipe", "demo", "--shards", "none")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("preprocess", "--dataset", "fcvdi", "--out", "o"), "fcvid"),
        (("preprocess", "--dataset", "folder", "--data-root", "none", "--out", "o"), "none"),
        (("preprocess", "--dataset", "folder", "--out", ""), "--out is empty"),
        (("preprocess", "--dataset", "folder", "--out", "o", "--data-root", ""), "--data-root is empty"),
        (("preprocess", "--dataset", "folder", "--out", "o", "--max-failures", "nan"), "--max-failures is 'nan'"),
        (("preprocess", "--dataset", "folder", "--out", "o", "--max-failures", "-1"), "--max-failures is '-1'"),
        (("preprocess", "--dataset", "folder", "--out", "o", "--max-failures", "200%"), "--max-failures is '200%'"),
        (("train", "--recipe", "demo", "--shards", ""), "the name of the folder of the shards is empty"),
        (("train", "--recipe", "dmeo", "--shards", "s"), "unknown recipe 'dmeo'; the nearest known one is 'demo'"),
        (("train", *TRAIN, "--set", "ppo.lrr=1"), "unknown setting 'ppo.lrr'; the nearest known one is 'ppo.lr'"),
        (("train", *TRAIN, "--set", "ppo.lr"), "--set 'ppo.lr' is not of the form key=value"),
        (("train", *TRAIN), "none"),
        (("tune", *TRAIN, "--name", "s", "--grid", "ppo.gama=1"), "unknown setting 'ppo.gama'"),
        (("tune", *TRAIN, "--name", "s", "--sample", "ppo.lr=lognormal:1:2"), "unknown distribution 'lognormal'"),
        (("tune", *TRAIN, "--name", "s", "--sample", "ppo.lr=loguniform:1"), "loguniform takes 2 numbers, not 1"),
        (("tune", *TRAIN, "--name", "s", "--space", "none.yaml"), "the space file none.yaml cannot be read"),
        (
            ("train", *TRAIN, "--set", "ppo.update_epochs=0"),
            "ppo.update_epochs is 0, but has to be a whole number, at least 1",
        ),
        (("tune", "--recipe", "demo"), "give --recipe and --shards, or --resume and the name of a sweep"),
        (("tune", "--resume", "s"), "there is no sweep 's' in runs; known: none"),
        (("tune", "--resume", "s", "--grid", "seed=1"), "--resume s takes --grid from the sweep itself: leave it out"),
        (("tune", "--resume", "s", "--set", "seed=1"), "--resume s takes --set from the sweep itself: leave it out"),
        (("tune", *TRAIN, "--grid", "seed=1,2", "--num-samples", "2"), "--num-samples 2 without --sample would repeat"),
        (("tune", *TRAIN, "--grid", "seed=1,2", "--search", "optuna"), "use --sample seed=choice:1:2"),
        (("tune", *TRAIN, "--scheduler", "asha"), "--scheduler asha compares trials, and there is only one"),
        (("tune", *TRAIN, "--name", "a/b", "--grid", "seed=1,2"), "'a/b' is no name for a sweep"),
        (("runs", "show", "ppo"), "'ppo' has to be the beginning of one stage in"),
        (("benchmark", "--shards", "s"), "give exactly one of --run, --sweep and --checkpoint"),
        (("benchmark", "--shards", "s", "--run", "a", "--precision", "int8"), "'int8' is none of float32, bf16, fp16"),
        (("benchmark", "--shards", "s", "--run", "nobody"), "there is no run 'nobody'"),
        (("report",), "holds no trial yet; `adafocus train` or `adafocus tune` makes one"),
        (("predict", "a.mp4", "--checkpoint", __file__), "is a file, and a checkpoint is a folder"),
    ],
)
def test_what_a_user_can_mend_is_one_line(arguments: tuple[str, ...], message: str, cli: Cli) -> None:
    status, _, err = cli(*arguments)
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1 and "Traceback" not in err


@pytest.mark.parametrize("runs", ["file", "file/below"])
def test_what_the_system_refuses_is_one_line(runs: str, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where a folder should be")
    status, _, err = cli("report", "--runs", tmp_path / runs)
    assert status == 2 and "/file" in err and "Traceback" not in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("postgresql://u:hunter2@127.0.0.1:1/x", "the package of its database driver is not installed"),
        ("nosuch+driver://u:hunter2@127.0.0.1/x", "cannot be used"),
        ("postgresql+nosuch://u:hunter2@127.0.0.1/x", "cannot be used"),
    ],
)
def test_the_store_is_opened_before_the_work(
    uri: str, message: str, cli: Cli, folder_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    status, _, err = cli("preprocess", "--dataset", "folder", "--data-root", folder_root, "--out", "o")
    assert status == 2 and message in err and "hunter2" not in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_recipes_are_listed_for_programs_too(cli: Cli) -> None:
    status, out, _ = cli("recipes", "--json")
    names = [row["recipe"] for row in json.loads(out)]
    assert status == 0 and "demo" in names and "activitynet-128" in names
    assert all(name in cli("recipes")[1] for name in names)


def test_training_on_shards_of_no_frames_says_so(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    status, _, err = cli("preprocess", "--dataset", "folder", "--data-root", tmp_path / "empty", "--out", "o")
    assert status == 2 and str(tmp_path / "empty") in err


@pytest.mark.ray
def test_preprocess_names_failures_and_is_tracked(cli: Cli, folder_root: Path, tmp_path: Path) -> None:
    arguments = ("preprocess", "--dataset", "folder", "--data-root", folder_root, "--out", "o", "--height", 48)
    status, out, err = cli(*arguments, "--runs", tmp_path / "runs")
    assert status == 1 and "more than 5% of the clips failed: `adafocus inspect o --failed` lists them" in err
    assert "12 clips" in out and "1 missing" in out
    status, out, _ = cli("inspect", "o", "--failed")
    assert status == 0 and all(f"clip {number}" in out for number in (3, 5, 9))
    status, out, _ = cli(*arguments, "--runs", tmp_path / "runs", "--max-failures", "3", "--json")
    assert status == 0 and json.loads(out)["failed"] == 3
    (run,) = Tracker(tmp_path / "runs").find("preprocess")  # the second start is the same data set, the same run
    assert run.info.status == "FINISHED"
    assert run.data.metrics["preprocess/failed"] == 3 and run.data.metrics["preprocess/clips"] == 12
    assert run.data.params["preprocess/digest"] == json.loads(out)["digest"]


def test_a_working_folder_that_is_gone_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr(sys, "argv", ["adafocus", "doctor"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2 and "the working folder is there no more" in capsys.readouterr().err
