"""The two lower floors need few packages: those of a machine that only trains and predicts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
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
import importlib, sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in blocked:
            return next((spec for each in finders if (spec := each.find_spec(name, path, target))), None)

    def find_distributions(self, *arguments):
        return (found for each in finders if hasattr(each, "find_distributions")
                for found in each.find_distributions(*arguments))

blocked = set(sys.argv[1].split(","))
finders, sys.meta_path[:] = [*sys.meta_path], [Without()]
failed = []
for module in sys.argv[2].split(","):
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        failed.append(f"{module}: {error}")
print("\\n".join(failed))
sys.exit(bool(failed))
"""


def without(blocked: set[str], modules: list[str], path: Sequence[Path] = (ROOT,)) -> subprocess.CompletedProcess[str]:
    """Import modules in a process in which the blocked ones cannot be imported."""
    argv = [sys.executable, "-c", PROGRAM, ",".join(sorted(blocked)), ",".join(modules)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(argv, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=200)


def test_the_lower_floors_import_without_what_only_the_upper_one_needs() -> None:
    """And so do the recipes, which are values of the lower floors' settings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[\[<>=~!; ]", item)[0].lower().replace("_", "-") for item in project["dependencies"]}
    assert declared >= NEEDED
    brought = {module: {name.lower().replace("_", "-") for name in names} for module, names in ALL.items()}
    blocked = {module for module, names in brought.items() if names & declared and not names & NEEDED}
    assert {"ray", "mlflow", "webdataset", "ffmpeg", "sklearn", "onnxruntime", "pandas", "rich", "yaml"} <= blocked
    files = [
        path for floor in ("preprocessing", "adafocus", "pipelines/recipes") for path in (ROOT / floor).rglob("*.py")
    ]
    modules = [path.relative_to(ROOT).as_posix().removesuffix(".py").removesuffix("/__init__") for path in files]
    done = without(blocked, sorted(module.replace("/", ".") for module in modules))
    assert done.returncode == 0, done.stdout + done.stderr
    # What is needed is needed: the list is no longer than it has to be.
    for module in ("pydantic", "simplejpeg", "filelock", "PIL"):
        users = ["adafocus.data.loader", "adafocus.training.stage_lock", "preprocessing.datasets.synthetic"]
        assert f"No module named '{module}" in without({module}, users).stdout


def test_the_checks_of_a_gpu_import_on_a_bare_machine() -> None:
    """With what docs/gpu.md asks for, and nothing else of the project's packages."""
    there = {*NEEDED, "torchvision", "timm", "pytest", "hypothesis"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(item for extra in project["optional-dependencies"].values() for item in extra)]
    names = {re.split(r"[\[<>=~!; ]", item)[0].lower().replace("_", "-") for item in asked}
    names |= {"opencv-python", "pyyaml", "pytest-timeout", "pytest-xdist"}
    brought = {module: {name.lower().replace("_", "-") for name in found} for module, found in ALL.items()}
    blocked = {module for module, found in brought.items() if found & names and not found & there}
    folders = [ROOT / "tests", ROOT / "tests/gpu"]
    files = [
        path for folder in folders for path in folder.glob("*.py") if folder.name == "gpu" or "parity" in path.name
    ]
    modules = ["conftest", *sorted(path.stem for path in files if path.stem not in ("conftest", "make_shards"))]
    for where in ([ROOT, *folders], [ROOT, ROOT / "tests/gpu", ROOT / "tests"]):  # both files named conftest
        done = without(blocked, modules, path=where)
        assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_slow_to_import_waits_until_it_is_needed() -> None:
    """To predict with a model in a folder takes none of them, and the workers of a sweep train before they draw."""
    predict = without({"mlflow", "ray", "matplotlib", "torchvision", "sklearn"}, ["pipelines.serving.predict"])
    assert predict.returncode == 0, predict.stdout + predict.stderr
    trial = without(
        {"matplotlib", "torchvision", "sklearn"}, ["pipelines.sweeps.workers.trial", "pipelines.sweeps.driver"]
    )
    assert trial.returncode == 0, trial.stdout + trial.stderr


ALL = packages_distributions()
