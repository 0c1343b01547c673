"""The report of a GPU's check, and the roofline in it, are right where no GPU is needed to know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from adafocus.config.overrides import override
from adafocus.evaluation import multiply_adds
from helpers.gpu_report import Report, Row, machine
from helpers.gpu_rig import NO_WEIGHTS, representatives, skips_frames
from helpers.roofline import bounds, layers
from helpers.tiny import shrink
from pipelines.recipes import find_recipe


def test_a_report_marks_missed_goals(tmp_path: Path) -> None:
    rows = [
        Row("fast", "bf16", 12.5, "x plain", at_least=10),
        Row("fast", "latency", 6.0, "ms", at_most=5),
        Row("fed", "waits", float("nan"), "%", at_most=5),
        Row("exact", "error", 1e-5, "", "a note"),
    ]
    assert [row.missed for row in rows] == [False, True, True, False]
    report = Report(rows, ["exact: a test: why"], ["fast: compiled"], passed=3, machine=dict(machine(on_gpu=False)))
    lines = report.table().splitlines()
    assert lines[1].endswith("at least 10  reached") and lines[2].endswith("at most 5    MISSED")
    assert lines[4].endswith("a note") and lines[5:] == ["FAILED exact: a test: why", "left out: fast: compiled"]
    report.write(tmp_path / "out" / "check.json")
    written = json.loads((tmp_path / "out" / "check.json").read_text())
    assert written["machine"]["torch"] == torch.__version__ and written["rows"][1]["missed"]
    assert [row["value"] for row in written["rows"]][:2] == [12.5, 6.0]
    again = Report.read(tmp_path / "out" / "check.json")
    assert (again.rows[:2], again.rows[3], again.failed, again.passed) == (rows[:2], rows[3], report.failed, 3)
    assert Report.read(tmp_path / "none") == Report()
    both = Report.joined([again, Report(failed=["b"], passed=1)])
    assert len(both.rows) == 4 and both.failed == ["exact: a test: why", "b"] and both.passed == 4 and not both.good
    assert Report(passed=1).good and not Report().good


@pytest.mark.parametrize("recipe", representatives())
def test_the_roofline_has_the_multiply_adds_of_the_papers(recipe: str) -> None:
    """But for the networks' own last layers, which a pass computes though nobody may read them, and a layer per prefix,
    which is none of torch's."""
    config = shrink(override(find_recipe(recipe), NO_WEIGHTS))
    counted = multiply_adds.count(config, 10)
    found = {
        part: sum(layer.multiply_adds for layer in layers(config, 10, 3) if layer.part == part) for part in counted
    }
    looked_at = config.skip.budget if skips_frames(config) else 1.0
    for part, share in {"glancer": 1.0, "focuser": looked_at, "policy": 1.0}.items():
        assert share * found[part] / 3e9 == pytest.approx(counted[part], rel=0.02), part


def test_a_part_is_bound_by_the_slower_of_both() -> None:
    config = shrink(override(find_recipe("activitynet-128"), NO_WEIGHTS))
    rates = {"bytes_per_number": 2, "other_peak": 1e15}
    fast_memory = bounds(config, 10, 2, network_peak=1e9, memory_peak=1e15, **rates)["focuser"]
    fast_matrix = bounds(config, 10, 2, network_peak=1e15, memory_peak=1e9, **rates)["focuser"]
    assert fast_memory.limit == "matrix units" and fast_memory.least == pytest.approx(fast_memory.arithmetic, rel=1e-3)
    assert fast_matrix.limit == "memory" and fast_matrix.least == pytest.approx(fast_matrix.memory, rel=1e-3)
    doubled = bounds(config, 10, 4, network_peak=1e9, memory_peak=1e15, **rates)["focuser"]
    assert doubled.arithmetic == pytest.approx(2 * fast_memory.arithmetic)
