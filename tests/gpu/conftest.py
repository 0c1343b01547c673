"""The rig that every check here runs on, and the report at the end: `make gpu-check`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from helpers.gpu_report import Report
from helpers.gpu_rig import BUDGET_S, Rig

REPORT = pytest.StashKey[Report]()
GPU_SHARDS = Path(__file__).parents[2] / "gpu-shards"


def part_of(path: Path) -> str:
    """`test_same_bits.py` -> `same bits`; a part of several files is their first word."""
    words = path.stem.removeprefix("test_").replace("_", " ")
    return next(part for part in BUDGET_S if words.startswith(part))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORT] = Report()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Parts run in the order of the table of budgets; what is elsewhere before them."""
    order, here = list(BUDGET_S), Path(__file__).parent
    items.sort(key=lambda item: order.index(part_of(item.path)) if here in item.path.parents else -1)


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """The device of the check's form, with what it has to know."""
    report = request.config.stash[REPORT] if request.param == "cuda" else Report()
    part = part_of(request.path)

    def shards() -> str:
        if request.param == "cpu":
            return request.getfixturevalue("synthetic_shards")
        assert (GPU_SHARDS / "index.parquet").exists(), "there are no gpu-shards/: run `make gpu-prepare` first"
        return str(GPU_SHARDS)

    started = time.monotonic()
    rig = Rig(torch.device(request.param), part, report, shards, started)
    if not rig.has_time(request.node.name, 1.0):
        pytest.skip(report.left_out[-1])
    yield rig
    report.seconds[part] = report.seconds.get(part, 0.0) + time.monotonic() - started
    if rig.is_gpu:
        torch.cuda.empty_cache()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table, and a file of it."""
    report = config.stash[REPORT]
    if report.rows:
        terminalreporter.section("what was found on this GPU")
        terminalreporter.write_line(report.table())
        path = Path(config.getoption("gpu_report"))
        report.write(path, torch.device("cuda"))
        terminalreporter.write_line(f"\n{path} holds these rows as JSON")
