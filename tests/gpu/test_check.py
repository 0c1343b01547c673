"""`make gpu-check` ends with a whole table: a part that fails, crashes or hangs takes nothing from the others."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.gpu_report import Report

PROGRAM = Path(__file__).parent / "check.py"
spec = importlib.util.spec_from_file_location("gpu_check", PROGRAM)
assert spec and spec.loader
check = importlib.util.module_from_spec(spec)
sys.modules["gpu_check"] = check
spec.loader.exec_module(check)

HEAD = """
import os, signal, sys, time
from helpers.gpu_recorder import REPORT
from helpers.gpu_report import Row

def row(request, what):
    request.config.stash[REPORT].rows.append(Row("p", what, 1.0, "x"))
"""
FILES = {
    "crash": """
def test_a(request): row(request, "before the crash")
def test_b(): os.kill(os.getpid(), signal.SIGSEGV)
def test_b_too(request): row(request, "behind the crash")
""",
    "broken": """
def test_a(): raise RuntimeError("CUDA error: an illegal memory access was encountered\\nmore words")
def test_b(request): row(request, f"in process {os.getpid()}")
def test_c(request): row(request, f"in process {os.getpid()}")
""",
    "hang": """
def test_a(request): row(request, "before it hangs")
def test_b(): time.sleep(100)
def test_c(): pass
""",
    "syntax": "def test_a(:",
    "empty": "",
    "good": """
def test_a(request): row(request, "last")
def test_b(): assert 1 + 1 == 3, "of words\\nin two lines"
""",
}


@pytest.mark.slow
def test_whatever_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES.items():
        (tmp_path / f"test_{name}.py").write_text(HEAD + text)
    monkeypatch.setattr(check, "GRACE_S", 1)
    seconds = {"hang": 30.0}
    parts = [check.Part(name, seconds.get(name, 100.0), (f"test_{name}.py",)) for name in FILES if name != "hang"]
    report = check.run_parts(parts, tmp_path / "out" / "gpu-check.json", [], tmp_path)
    with (tmp_path / "hang.log").open("w") as log:
        started = time.time()
        hung = check.run_part(check.Part("hang", 0, ("test_hang.py",)), started + 25, [], log, tmp_path)
        assert 24 < time.time() - started < 35
    assert [row.what for row in hung.rows] == ["before it hangs"] and hung.passed == 1
    assert hung.failed == ["hang: test_hang.py::test_b: its time was over"]
    assert hung.left_out == ["hang: what comes behind test_hang.py::test_b"]

    whats = [row.what for row in report.rows]
    assert whats[:2] == ["before the crash", "behind the crash"] and whats[4:] == ["last"]
    assert whats[2] == whats[3]  # one fresh process for what comes behind a context that is broken
    assert report.failed[0] == "crash: test_crash.py::test_b: its process was ended by SIGSEGV"
    assert report.failed[1].startswith("broken: test_broken.py::test_a: RuntimeError: CUDA error: an illegal memory")
    assert report.failed[2].startswith("syntax: test_syntax.py: ") and "SyntaxError" in report.failed[2]
    assert report.failed[3].startswith("good: test_good.py::test_b: AssertionError: of words in two lines")
    assert len(report.failed) == 4 and not report.left_out and report.passed == 5 and not report.good
    assert all("\n" not in line for line in report.failed)
    assert Report.read(tmp_path / "out" / "gpu-check.json").failed == report.failed
    assert "illegal memory access" in (tmp_path / "out" / "gpu-check.log").read_text()


def test_time_that_is_over_leaves_a_part_out(tmp_path: Path) -> None:
    report = check.run_parts([check.Part("late", 1.0, ("test_late.py",))], tmp_path / "gpu-check.json", [], tmp_path)
    assert report.left_out == ["late: all of it"] and not report.good


def test_every_file_is_in_a_part_and_all_fit_into_eight_minutes() -> None:
    found = [path for part in check.PARTS for pattern in part.files for path in check.ROOT.glob(pattern)]
    assert len(found) == len(set(found))
    here = {path for path in Path(__file__).parent.glob("test_*.py") if path.name != Path(__file__).name}
    assert here <= set(found) and len(set(found) - here) == 3
    assert sum(part.seconds for part in check.PARTS) + check.GRACE_S < 480


def test_its_command_line(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, PROGRAM, "nonsense"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "there is no part nonsense" in done.stderr


@pytest.mark.slow
def test_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One part in its tiny form, through all that a GPU's check goes through."""
    monkeypatch.setenv("OUT", str(tmp_path))
    done = subprocess.run([PROGRAM.with_name("check.sh"), "--cpu", "fed"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "gpu-check.json").read_text())
    assert content["machine"]["device"] == "cpu" and {row["part"] for row in content["rows"]} == {"fed"}
    assert "== what was found on cpu ==" in done.stdout and "loader alone, 1 processes" in done.stdout
