"""The version of this program: the package's number, and the git commit of its files."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def package_version() -> str:
    """Version number of the installed package, or `not installed` where only its files were sent, as to a cluster."""
    try:
        return metadata.version("adafocus")
    except metadata.PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """Git commit of this code: of its repository, else the environment's ADAFOCUS_COMMIT, else `unknown`."""
    if (ROOT / ".git").exists():  # not a repository further up, in which this package may be installed
        try:
            from git import InvalidGitRepositoryError, Repo

            return Repo(ROOT).head.commit.hexsha
        except (ImportError, InvalidGitRepositoryError, ValueError):  # no git on this machine, or nothing committed
            pass
    return os.environ.get("ADAFOCUS_COMMIT", "unknown")
