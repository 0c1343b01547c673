"""What README and Makefile tell people to type exists."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from helpers.commands import GROUP, options_of
from pipelines.recipes.recipes import RECIPES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TARGETS = {
    line.split(":")[0] for line in (ROOT / "Makefile").read_text().splitlines() if re.match(r"[a-z-]+:.*##", line)
}


def commands(text: str) -> list[list[str]]:
    """Words of every indented or back-quoted command of ours."""
    found = re.findall(
        r"^(?:    |\t\S*/)((?:make|adafocus) .+?)(?:[ ;&]*\\)?$|`((?:make|adafocus) [^`]+)`", text, re.MULTILINE
    )
    return [shlex.split(block or inline, comments=True) for block, inline in found]


def check(words: list[str]) -> None:
    if "..." in " ".join(words) or "<" in " ".join(words):
        words = [word for word in words if "..." not in word and "<" not in word]
    if words[0] == "make":
        settings = dict(word.split("=", 1) for word in words[1:] if "=" in word)
        targets = [word for word in words[1:] if "=" not in word]
        assert set(targets) <= TARGETS, words
        assert set(settings) <= {"DATASET", "DATA_ROOT", "SHARDS", "RUNS", "RECIPE", "ARGS", "PYTHON"}, words
        assert settings.get("RECIPE", "demo") in RECIPES
        if "ARGS" in settings and targets:
            check(["adafocus", targets[0], *shlex.split(settings["ARGS"])])
    elif len(words) > 1:
        assert words[1] in GROUP.commands or words[1].startswith("-"), words
        if words[1] in GROUP.commands:
            given = {word.split("=")[0] for word in words[2:] if word.startswith("--")}
            assert given <= options_of(words[1]), words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_a_page_exist(page: Path) -> None:
    for words in commands(page.read_text()):
        check(words)


def test_commands_of_the_makefile_exist() -> None:
    text = (ROOT / "Makefile").read_text()
    found = commands(text)
    assert {words[1] for words in found} >= {"preprocess", "train", "tune", "benchmark", "report", "dashboard"}
    for words in found:
        check([word for word in words if not word.startswith("$")])


def test_make_alone_prints_the_targets() -> None:
    printed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "preprocess", "train", "tune", "benchmark", "report", "mlflow", "bench", "test", "help"):
        assert re.search(rf"^  {target} ", printed, re.MULTILINE), target


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert "://" in link or (page.parent / link).exists(), (page, link)
