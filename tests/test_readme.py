"""What README, the pages of docs/ and the Makefile tell people to type or to look at exists."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers import settings
from helpers.commands import GROUP, blocks, check_command, check_mention, command_of, inline, shell_commands
from pipelines.recipes import RECIPES, about

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY")), *DOCS]
TARGETS = {
    line.split(":")[0] for line in (ROOT / "Makefile").read_text().splitlines() if re.match(r"[a-z-]+:.*##", line)
}
VARIABLES = {"DATASET", "DATA_ROOT", "SHARDS", "RUNS", "RECIPE", "RECIPES", "ARGS", "PYTHON", "TORCH"}
BARE = {key: value for key, value in os.environ.items() if not key.startswith("MAKE") and key != "ARGS"}
"""Without what `make test ARGS=...` hands on to every make below it."""


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def check_make(words: list[str]) -> None:
    """Targets and variables exist, and the commands that make would run are whole."""
    settings = dict(word.split("=", 1) for word in words[1:] if "=" in word)
    targets = [word for word in words[1:] if "=" not in word]
    assert set(targets) <= TARGETS and settings.keys() <= VARIABLES, words
    assert settings.get("RECIPE", "demo") in RECIPES
    dry = ["make", "--dry-run", "--assume-old=.venv/.ready", *words[1:]]
    printed = subprocess.run(dry, cwd=ROOT, env=BARE, capture_output=True, text=True, check=True).stdout
    for command in shell_commands(printed, "adafocus"):
        check_command(command)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_on_a_page_work(page: Path) -> None:
    text = page.read_text()
    shell = "".join(content for language, content in blocks(text) if language == "bash")
    for words in shell_commands(shell, "adafocus"):
        check_command(words)
    for words in shell_commands(shell, "make"):
        check_make(words)
    for mention in inline(text):
        if re.match(r"adafocus |make ", mention):
            words = shlex.split(mention)
            check_mention(words) if words[0] == "adafocus" else check_make([w for w in words if "<" not in w])


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    for path in inline(text):
        if re.fullmatch(r"(preprocessing|adafocus|pipelines|tests|docs)/[\w./-]*", path):
            assert (ROOT / path).exists(), path
    for language, content in blocks(text):
        assert language in ("bash", "python", "yaml", "text"), f"{page}: a block without a language"
        for script in shell_commands(content, "python") if language == "bash" else ():
            assert (ROOT / script[1]).exists(), script
        for module, names in (
            re.findall(r"^from (\S+) import (.+)$", content, re.MULTILINE) if language == "python" else ()
        ):
            assert all(hasattr(importlib.import_module(module), each) for each in names.split(", ")), module


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text()):
        if "://" in target:
            continue
        path = page.parent / target if target else page
        assert path.exists(), (target, anchor)
        headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {_slug(heading) for heading in headings}, (target, anchor)


def _slug(heading: str) -> str:
    return re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    def pages(entry: Any) -> list[str]:
        values = entry.values() if isinstance(entry, dict) else entry
        return [entry] if isinstance(entry, str) else [page for value in values for page in pages(value)]

    shown = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    roots = {"index.md", "contributing.md", "changelog.md", "security.md", "log.md"}  # made by docs/hooks.py
    assert sorted(shown) == sorted({*(page.relative_to(ROOT / "docs").as_posix() for page in DOCS), *roots})


def test_the_site_is_whole_and_fetches_nothing(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "search/search_index.js").stat().st_size > 10_000
    for page in tmp_path.rglob("*.html"):
        assert not re.search(r"<(script|img|iframe|link)[^>]*(src|href)=\"?(https?:)?//", page.read_text()), page


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_every_room_is_on_the_plan() -> None:
    named = inline((ROOT / "docs/architecture.md").read_text())
    for folder in ("preprocessing", "adafocus", "pipelines"):
        rooms = {name(file.parent) for file in (ROOT / folder).glob("*/*.*") if file.parent.name != "__pycache__"}
        assert {f"{room}/" for room in rooms} <= set(named)


def test_the_page_of_settings_is_that_of_the_configuration(pytestconfig: pytest.Config) -> None:
    path = ROOT / "docs/settings.md"
    if pytestconfig.getoption("--record"):
        path.write_text(settings.page())
    assert path.read_text() == settings.page(), "pytest tests/test_readme.py --record writes it anew"


def test_the_reference_names_every_verb_and_recipe() -> None:
    verbs = inline((ROOT / "docs/command-line.md").read_text())
    for verb, command in GROUP.commands.items():
        for nested in getattr(command, "commands", {"": command}):
            assert f"adafocus {verb} {nested}".strip() in verbs
    recipes = (ROOT / "docs/recipes.md").read_text()
    for recipe in RECIPES:
        assert f"| `{recipe}` | {about(recipe)} |" in recipes


def test_commands_of_the_makefile_exist() -> None:
    run = {"demo", "preprocess", "train", "tune", "benchmark", "report", "mlflow"}
    assert run <= TARGETS
    text = (ROOT / "Makefile").read_text().replace("$(BIN)/", "").replace("$(ARGS)", "")
    verbs = {command_of(words)[0].name for words in shell_commands(text.replace("$", ""), "adafocus")}
    assert verbs >= {"preprocess", "train", "tune", "benchmark", "report", "dashboard"}
    for target in ("demo", "preprocess", "train"):
        check_make(["make", target])


def test_make_alone_prints_the_targets() -> None:
    printed = subprocess.run(["make"], cwd=ROOT, env=BARE, capture_output=True, text=True, check=True).stdout
    for target in TARGETS:
        assert re.search(rf"^  {target} ", printed, re.MULTILINE), target
