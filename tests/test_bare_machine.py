"""The two lower floors need few packages: those of a machine that only trains and predicts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parent.parent
NEEDED = {
    *("torch", "numpy", "pyarrow", "safetensors", "pillow"),
    *("pydantic", "simplejpeg", "filelock"),
}
"""Distributions that the lower floors import when they are imported. Others that they use (torchvision, webdataset,
ffmpeg-python, scikit-learn, ONNX) are imported where something is done with them."""

PROGRAM = """
import importlib, json, sys

OWN = {"preprocessing", "adafocus", "pipelines"}

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in blocked:
            return next((spec for each in finders if (spec := each.find_spec(name, path, target))), None)

    def find_distributions(self, *arguments):
        return (found for each in finders if hasattr(each, "find_distributions")
                for found in each.find_distributions(*arguments))

finders, sys.meta_path[:] = [*sys.meta_path], [Without()]
failed = []
for packages, modules in json.loads(sys.argv[1]):
    blocked = set(packages)
    for name in [name for name in sys.modules if name.partition(".")[0] in OWN | blocked]:
        del sys.modules[name]
    failed.append([])
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            failed[-1].append(f"{module}: {error}")
print(json.dumps(failed))
"""

SLOW = ["matplotlib", "torchvision", "sklearn"]
"""Slow to import. To predict with a model in a folder takes none of them, and the workers of a sweep train before they
draw."""


@cache
def brought() -> dict[str, set[str]]:
    """The distributions that bring a module, of every module that is installed."""
    everything = packages_distributions().items()
    return {module: {name.lower().replace("_", "-") for name in names} for module, names in everything}


def imported(*rounds: tuple[Iterable[str], list[str]], path: Sequence[Path] = (ROOT,)) -> list[list[str]]:
    """What fails of each round's modules where none of its packages can be imported, all in one process."""
    argv = [sys.executable, "-c", PROGRAM, json.dumps([(sorted(blocked), modules) for blocked, modules in rounds])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return [list(each) for each in json.loads(done.stdout)]


def test_what_is_imported_is_no_more_than_what_is_needed() -> None:
    """The lower floors import without what only the upper one needs, and so do the recipes, which are values of the
    lower floors' settings; the list of what is needed is no longer than it has to be."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[\[<>=~!; ]", item)[0].lower().replace("_", "-") for item in project["dependencies"]}
    assert declared >= NEEDED
    blocked = {module for module, names in brought().items() if names & declared and not names & NEEDED}
    assert {"ray", "mlflow", "webdataset", "ffmpeg", "sklearn", "onnxruntime", "pandas", "rich", "yaml"} <= blocked
    files = [
        path for floor in ("preprocessing", "adafocus", "pipelines/recipes") for path in (ROOT / floor).rglob("*.py")
    ]
    modules = [path.relative_to(ROOT).as_posix().removesuffix(".py").removesuffix("/__init__") for path in files]
    users = ["adafocus.data.loader", "adafocus.training.stage_lock", "preprocessing.datasets.synthetic"]
    needed = ("pydantic", "simplejpeg", "filelock", "PIL")
    floors, *without_one, predict, trial = imported(
        (blocked, sorted(module.replace("/", ".") for module in modules)),
        *(({module}, users) for module in needed),
        ({"mlflow", "ray", *SLOW}, ["pipelines.serving.predict"]),
        (SLOW, ["pipelines.sweeps.workers.trial", "pipelines.sweeps.driver"]),
    )
    assert not floors + predict + trial
    for module, failed in zip(needed, without_one, strict=True):
        assert any(f"No module named '{module}" in each for each in failed), module


def test_the_checks_of_a_gpu_import_on_a_bare_machine() -> None:
    """With what docs/gpu.md asks for, and nothing else of the project's packages."""
    there = {*NEEDED, "torchvision", "timm", "pytest", "hypothesis"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(item for extra in project["optional-dependencies"].values() for item in extra)]
    names = {re.split(r"[\[<>=~!; ]", item)[0].lower().replace("_", "-") for item in asked}
    names |= {"opencv-python", "pyyaml", "pytest-timeout", "pytest-xdist"}
    blocked = {module for module, found in brought().items() if found & names and not found & there}
    folders = [ROOT / "tests", ROOT / "tests/gpu"]
    files = [
        path for folder in folders for path in folder.glob("*.py") if folder.name == "gpu" or "parity" in path.name
    ]
    modules = ["conftest", *sorted(path.stem for path in files if path.stem not in ("conftest", "make_shards"))]
    for where in ([ROOT, *folders], [ROOT, ROOT / "tests/gpu", ROOT / "tests"]):  # both files named conftest
        assert imported((blocked, modules), path=where) == [[]]
