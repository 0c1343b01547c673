"""The wheel, in an environment that has never seen this checkout: the command line starts, and predicts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.serving.predict import AdaFocusPredictor

ROOT = Path(__file__).parent.parent
PROJECT = ("pyproject.toml", "README.md", "LICENSE", "preprocessing", "adafocus", "pipelines")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the checkout."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in PROJECT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    argv = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(copy)]
    subprocess.run(argv, check=True, timeout=200)
    (built,) = out.glob("adafocus-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty environment with the wheel. The packages that it requires are read from where they are installed, for
    they are gigabytes; the checkout is not among them."""
    folder = tmp_path_factory.mktemp("environment") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=100)
    python = folder / "bin" / "python"
    argv = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(argv, check=True, timeout=100)
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "packages.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder


def run(environment: Path, cwd: Path, *argv: object) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = [str(environment / "bin" / str(argv[0])), *map(str, argv[1:])]
    return subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, timeout=200)


def test_it_holds_what_it_needs_and_no_more(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tracked = subprocess.run(["git", "ls-files", "--", *PROJECT[3:]], cwd=ROOT, capture_output=True, text=True).stdout
    if tracked:  # else this is no checkout
        assert set(tracked.splitlines()) <= set(names), "files that the wheel has lost"
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == set(PROJECT[3:])


def test_it_runs(
    environment: Path,
    checkpoints: dict[str, Path],
    synthetic_shards: str,
    make_video: Callable[..., Path],
    tmp_path: Path,
) -> None:
    places = "import pipelines, adafocus; print(pipelines.__file__, adafocus.__file__)"
    where = run(environment, tmp_path, "python", "-c", places)
    assert where.stdout.count(str(environment)) == 2 and str(ROOT) not in where.stdout, where.stderr
    assert "Usage: adafocus" in run(environment, tmp_path, "adafocus", "--help").stdout
    model = AdaFocusPredictor(checkpoints["frame"], device="cpu", shards=synthetic_shards)
    shared, video = model.save_pretrained(tmp_path / "m"), make_video(tmp_path / "video.mp4", count=20)
    options = ("--checkpoint", shared, "--device", "cpu", "--explain", "out/v")
    done = run(environment, tmp_path, "adafocus", "predict", video, *options)
    assert done.returncode == 0 and "GFLOPs" in done.stdout, done.stderr
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".png", ".mp4", ".html"}  # templates came along
