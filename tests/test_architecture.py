"""The shape of the project: imports point one way, and each outside world has one place."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
FOLDERS = ("preprocessing", "adafocus", "pipelines")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Modules that a file imports, in functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
    return found


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_point_one_way(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    above = FOLDERS[FOLDERS.index(folder) + 1 :]
    banned = {
        "preprocessing": ("torch", "torchvision", "ray", "mlflow"),
        "adafocus": ("ray", "mlflow"),
        "pipelines": (),
    }
    wrong = {module for module in imports(path) if module.split(".")[0] in (*above, *banned[folder])}
    assert not wrong


ALLOWED = {
    "subprocess": {"preprocessing/media/ffmpeg.py"},
    # pyfunc_model.py runs inside MLflow, where a logged model is loaded: it is the model's own code.
    "mlflow": {"pipelines/serving/pyfunc_model.py", *(name(path) for path in FILES if path.parent.name == "tracking")},
    "ray": {
        *("pipelines/preprocess/extract.py", "pipelines/ray_runtime/session.py", "pipelines/ray_runtime/tasks.py"),
        "pipelines/ray_runtime/resources.py",
        *(
            f"pipelines/sweeps/{noun}.py"
            for noun in ("driver", "plan", "trial", "worker_group", "scheduler", "searcher", "outcome_callback")
        ),
    },
}


@pytest.mark.parametrize("module", ALLOWED)
def test_each_outside_world_has_its_place(module: str) -> None:
    users = {name(path) for path in FILES if any(found.split(".")[0] == module for found in imports(path))}
    assert users <= ALLOWED[module]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_are_short_and_say_what_they_are(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text)) or not text


def test_only_tracking_knows_the_names_of_tags() -> None:
    """Everybody else reads records (pipelines/tracking/records.py)."""
    for path in FILES:
        if path.parent.name != "tracking":
            nodes = list(ast.walk(ast.parse(path.read_text())))
            texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
            assert not [text for text in texts if re.match(r"adafocus\.\w|mlflow\.(parent|note|source)", text)], path
            assert not [node for node in nodes if isinstance(node, ast.Attribute) and node.attr == "tags"], path


def test_library_code_neither_prints_nor_names_a_device() -> None:
    for path in FILES:
        if path.relative_to(ROOT).parts[0] != "pipelines":
            assert not re.search(r"^\s*print\(|\.cuda\(\)", path.read_text(), re.MULTILINE), path


def test_the_conda_environment_is_the_same() -> None:
    """environment.yml installs the project's own metadata with the same pins, and adds only what pip cannot bring."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert pip == {"pip": ["--constraint constraints.txt", "--editable .[dev,docs]"]}
    assert {item.split("=")[0] for item in conda} == {"python", "ffmpeg", "make", "pip"}
    python = next(item.split("=")[1] for item in conda if item.startswith("python="))
    assert project["requires-python"] == f">={python}"


def test_constraints_pin_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    lines = (ROOT / "constraints.txt").read_text().lower().replace("_", "-").splitlines()
    pinned = {line.split("==")[0] for line in lines if "==" in line}
    names = {re.split(r"[\[<>=~!; ]", item)[0].lower().replace("_", "-") for item in wanted}
    assert names <= pinned
