"""The notebook runs from its first cell to its last, and its model learns something."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs" / "first-steps.ipynb"


def code() -> str:
    """All cells of code, one below the other."""
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def test_it_was_saved_without_outputs() -> None:
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert cell["cell_type"] == "markdown" or (cell["outputs"] == [] and cell["execution_count"] is None)
    compile(code(), str(NOTEBOOK), "exec")


def test_what_it_imports_is_there() -> None:
    """And is no module where a function of that name is called."""
    tree = ast.parse(code())
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found: dict[str, object] = {}
            exec(ast.unparse(node), found)
            assert all(callable(found[alias.name]) for alias in node.names if alias.name in called)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_it_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-c", code()]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=850)
    assert done.returncode == 0, done.stderr[-3000:]
    scores = re.findall(r"^policy \(.*\) +(\d+\.\d) %", done.stdout, re.MULTILINE)
    assert scores and float(scores[0]) > 20  # ten classes: chance is ten percent
    (picture,) = (tmp_path / "first-steps" / "explained").glob("*.png")
    assert picture.stat().st_size > 10_000
