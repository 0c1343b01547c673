"""A plugin of pytest that writes down, after every test, what a check of a GPU has found so far: whatever ends the
process then, that stays. `pytest -p helpers.gpu_recorder --gpu-report FILE --gpu-until SECONDS`"""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path

import pytest
import torch

from helpers.gpu_report import Report, machine

REPORT = pytest.StashKey[Report]()
UNTIL = pytest.StashKey[float]()
"""When the part's time is over, in seconds since 1970."""
LONGEST = 300
"""Letters of a reason."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where to write, how long there is time, and what has run already."""
    parser.addoption("--gpu-report", type=Path, help="file for what is found")
    parser.addoption("--gpu-part", help="name of what runs")
    parser.addoption("--gpu-until", type=float, help="when its time is over, in seconds since 1970")
    parser.addoption("--gpu-done", action="append", default=[], help="name of a test that shall not run again")


def pytest_configure(config: pytest.Config) -> None:
    """Begin a report."""
    assert config.getoption("gpu_report"), "give --gpu-report, --gpu-part and --gpu-until"
    report = Report(machine=dict(machine(torch.cuda.is_available())))
    config.stash[REPORT], config.stash[UNTIL] = report, config.getoption("gpu_until")
    config.pluginmanager.register(Recorder(report, config.getoption("gpu_report"), config.getoption("gpu_part")))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has run already."""
    done = set(config.getoption("gpu_done"))
    items[:] = [item for item in items if item.nodeid not in done]


class Recorder:
    """Keeps the file up to date."""

    def __init__(self, report: Report, path: Path, part: str) -> None:
        self.report, self.path, self.part, self.started = report, path, part, time.monotonic()

    def write(self) -> None:
        """Write all that is known."""
        self.report.seconds[self.part] = time.monotonic() - self.started
        self.report.write(self.path)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file was read for its tests."""
        if report.failed:
            self.report.failed.append(f"{self.part}: {report.nodeid}: {reason(report)}")
            self.write()

    def pytest_sessionfinish(self) -> None:
        """All is over, which may be nothing."""
        self.write()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test begins."""
        self.report.running = nodeid
        self.write()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test's preparation, itself or its cleaning up is over."""
        if report.failed:
            self.report.failed.append(f"{self.part}: {report.nodeid.rpartition('/')[2]}: {reason(report)}")
            if broken(reason(report)):
                self.report.broken = reason(report)
        self.report.passed += report.passed and report.when == "call"

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """A test is over."""
        self.report.running = ""
        self.report.done.append(nodeid)
        self.write()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> object:
        """Let go of what a failed test had on the card, which its traceback holds, before the next one; and end where
        the card takes no more work from this process."""
        outcome = yield
        for name in ("last_exc", "last_type", "last_value", "last_traceback"):
            sys.__dict__.pop(name, None)
        if torch.cuda.is_available() and not self.report.broken:
            gc.collect()
            torch.cuda.empty_cache()
        if self.report.broken:
            item.session.shouldstop = self.report.broken
        return outcome


def reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why a test, or a file of them, failed, in a line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else str(report.longrepr).strip().rpartition("\n")[2]
    return " ".join(text.split())[:LONGEST]


FATAL = (
    "CUDA error: unspecified",
    "illegal memory access",
    "device-side assert",
    "misaligned address",
    "launch failure",
    "illegal instruction",
)


def broken(text: str) -> bool:
    """Is it an error after which CUDA refuses all further work of the process?"""
    return any(each in text for each in FATAL)
