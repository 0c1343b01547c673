"""The shape of the project: imports go down only, each outside world has its room, files are short."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
FLOORS: dict[str, tuple[str, ...]] = {
    "preprocessing": (
        "schema addresses files frame_choice processors typed_record",
        "clips sources ffmpeg media",
        "datasets shards",
    ),
    "adafocus": (
        "config divergence distributed devices",
        "models data acceleration",
        "stages",
        "methods",
        "checkpoint evaluation",
        "training inference",
        "interop",
    ),
    "pipelines": (
        "paths logs progress version recipes",
        "tracking ray_runtime preprocess visualize",
        "training machine",
        "sweeps benchmarks reporting serving app",
        "cli",
    ),
}
"""Each floor with its rooms, from the bottom to the top. A room imports rooms of its own line and of the lines above it
in this table, and of the floors before; nothing imports in a circle."""
BANNED: dict[str, tuple[str, ...]] = {
    "preprocessing": ("torch", "torchvision", "ray", "mlflow"),
    "adafocus": ("ray", "mlflow"),
}
"""Packages that a floor does without."""
ALLOWED: dict[str, tuple[str, ...]] = {
    "subprocess": ("preprocessing/ffmpeg/process.py",),
    "timm": ("adafocus/models/backbones/timm_networks.py",),
    "mlflow": ("pipelines/tracking/", "pipelines/serving/pyfunc_model.py"),  # the second runs inside MLflow
    "huggingface_hub": ("pipelines/serving/hub.py",),
    "gradio": ("pipelines/app/",),
    "ray": tuple(f"pipelines/{room}/" for room in ("ray_runtime", "preprocess", "training", "sweeps")),
}
"""Folders and files that import a package of the outside world."""

FILES = {path.relative_to(ROOT).as_posix(): path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))}
MODULES = {name: name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in FILES}
"""`adafocus/models/crop.py` -> `adafocus.models.crop`."""


@cache
def trees() -> dict[str, ast.Module]:
    """Every file's syntax tree."""
    return {name: ast.parse(path.read_text()) for name, path in FILES.items()}


def imported(tree: ast.Module) -> set[str]:
    """All that a file imports, in functions and for type checking too: our own modules, and others by their names."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update((names & set(MODULES.values())) or {node.module})
    return found


@cache
def imports() -> dict[str, set[str]]:
    """What every module imports."""
    return {MODULES[name]: imported(tree) - {MODULES[name]} for name, tree in trees().items()}


@cache
def own_imports() -> dict[str, set[str]]:
    """What every module imports of the project's own."""
    return {module: found & imports().keys() for module, found in imports().items()}


def room_of(module: str) -> str:
    """`adafocus.models.crop` -> `adafocus.models`."""
    return ".".join(module.split(".")[:2])


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """One circle in a graph; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_nothing_imports_in_a_circle() -> None:
    assert not circle(own_imports())
    rooms: dict[str, set[str]] = defaultdict(set)
    for module, found in own_imports().items():
        rooms[room_of(module)] |= {room_of(each) for each in found} - {room_of(module)}
    assert not circle(rooms)


def test_imports_go_down_only() -> None:
    height = {floor: (number, -1) for number, floor in enumerate(FLOORS)}
    for number, (floor, lines) in enumerate(FLOORS.items()):
        height |= {f"{floor}.{room}": (number, at) for at, rooms in enumerate(lines) for room in rooms.split()}
    assert {room_of(module) for module in own_imports()} == height.keys(), (
        "rooms without a place in the table, or that are gone"
    )
    pairs = [(module, each) for module, found in own_imports().items() for each in found]
    assert not [pair for pair in pairs if height[room_of(pair[1])] > height[room_of(pair[0])]]


def test_each_outside_world_has_its_rooms() -> None:
    users: dict[str, list[str]] = defaultdict(list)
    for name, module in MODULES.items():
        for package in {each.split(".")[0] for each in imports()[module]}:
            users[package].append(name)
    for package, places in ALLOWED.items():
        assert not [name for name in users[package] if not name.startswith(places)], package
    for floor, packages in BANNED.items():
        assert not [name for package in packages for name in users[package] if name.startswith(f"{floor}/")], floor


def test_files_are_short_and_say_what_they_are() -> None:
    for name, path in FILES.items():
        assert len(path.read_text().splitlines()) <= 400, name
        assert ast.get_docstring(trees()[name]) or (path.name == "__init__.py" and not path.read_text()), name


def test_only_tracking_knows_the_names_of_tags() -> None:
    """Everybody else reads records (pipelines/tracking/records.py)."""
    for name, tree in trees().items():
        if not name.startswith("pipelines/tracking/"):
            texts = [str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)]
            assert not [text for text in texts if re.match(r"adafocus\.\w|mlflow\.(parent|note|source)", text)], name
            assert not [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "tags"], (
                name
            )


def test_texts_are_written_and_read_as_utf8_wherever_the_program_runs() -> None:
    """Not as the system's locale has it, which need not know the letters of a class or of a file's name."""
    for name, tree in trees().items():
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
        for call in calls:
            texts = {"read_text": 1, "write_text": 2}.get(call.func.attr)
            assert texts is None or len(call.args) + len(call.keywords) >= texts, (name, call.lineno)


def test_library_code_neither_prints_nor_names_a_device() -> None:
    for name, path in FILES.items():
        if not name.startswith("pipelines/"):
            assert not re.search(r"^\s*print\(|\.cuda\(\)", path.read_text(), re.MULTILINE), name


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


OPTIONAL = {"huggingface_hub": "hub", "gradio": "app"}
"""Packages that an extra of that name installs: imported in functions only, so that the rest works without them."""


def test_optional_packages_are_imported_when_they_are_used() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for module, extra in OPTIONAL.items():
        assert any(item.startswith(module) for item in extras[extra])
        for name, tree in trees().items():
            top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
            assert not {each for each in imported(top) if each.split(".")[0] == module}, name


def test_every_package_that_is_imported_is_declared() -> None:
    """What another package happens to bring may go with its next version. Extras for users count."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: items for name, items in project["optional-dependencies"].items() if name not in ("dev", "docs")}
    wanted = [*project["dependencies"], *(item for items in extras.values() for item in items)]
    declared = {re.split(r"[\[<>=~!; ]", item)[0].lower().replace("_", "-") for item in wanted}
    modules = {name.split(".")[0] for names in imports().values() for name in names} - sys.stdlib_module_names
    brought = packages_distributions()
    for module in sorted(modules - set(FLOORS) - OPTIONAL.keys()):
        distributions = {name.lower().replace("_", "-") for name in brought.get(module, [])}
        assert distributions & declared, f"{module} of {distributions or 'nothing that is installed'}"
