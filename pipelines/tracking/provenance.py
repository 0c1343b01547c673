"""What the numbers of a run depend on besides its configuration: commit and versions; and who made it."""

from __future__ import annotations

import getpass
import os
import platform
from importlib.metadata import PackageNotFoundError, version

from pipelines.version import commit


def provenance() -> dict[str, str]:
    """What the numbers depend on besides the configuration."""
    packages = ("torch", "torchvision", "ray", "mlflow", "adafocus")
    return {
        "git_commit": commit(),
        "version.python": platform.python_version(),
        **{f"version.{name}": _version(name) for name in packages},
    }


def user() -> str:
    """Who runs this: the name of the operating system's user, or the number where it has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # as in a container whose user is only a number
        return str(os.getuid())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"  # this project itself, where a cluster was sent its files
