"""A packed data set, and copies of it and of its videos that a test may change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from helpers.packing import finish, start


@pytest.fixture(scope="session")
def finished(folder_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packed data set. Not to be changed."""
    out = tmp_path_factory.mktemp("finished")
    finish(*start(folder_root, out))
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of the packed data set."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


@pytest.fixture
def root(folder_root: Path, tmp_path: Path) -> Path:
    """A copy of its videos."""
    return Path(shutil.copytree(folder_root, tmp_path / "root"))
