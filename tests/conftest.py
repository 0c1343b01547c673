"""Small real videos and data roots that tests make for themselves."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from adafocus.acceleration import fuse
from adafocus.checkpoint import Meta, save
from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.data.batches import Batch
from adafocus.data.loader import ClipLoader
from adafocus.methods import build_model, method_of
from adafocus.models.adafocus_plus import AdaFocusPlus
from helpers.measuring import tf32
from helpers.networks import skip_some
from helpers.packing import pack_synthetic
from helpers.tiny import PER_CLIP, SYNTHETIC, TINY, UNI, noise_batch, numbered_frames, shrink
from pipelines.recipes.cpu import demo
from preprocessing.datasets import synthetic
from preprocessing.ffmpeg.encode import encode_video
from preprocessing.ffmpeg.program import find_ffmpeg
from preprocessing.schema import DatasetInfo

settings.register_profile("untimed", deadline=None)  # how long an example takes depends on the machine's other work
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def make_video(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """make_video(path, count=12, fps=10, height=48, width=64, seed=0) writes an H.264 file. Equal ones are encoded
    once."""
    encoded = tmp_path_factory.mktemp("encoded")

    def make(path: Path, count: int = 12, fps: float = 10, height: int = 48, width: int = 64, seed: int = 0) -> Path:
        original = encoded / f"{count}-{fps}-{height}-{width}-{seed}.mp4"
        if not original.exists():
            encode_video(original, numbered_frames(count, height, width, seed), fps)
        path.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(original, path))

    return make


@pytest.fixture(scope="session")
def run_ffmpeg() -> Callable[..., None]:
    """run_ffmpeg("-i", ...) for files of a form that the project itself never writes."""

    def run(*arguments: object) -> None:
        argv = [find_ffmpeg(), "-nostdin", "-v", "error", "-y", *map(str, arguments)]
        subprocess.run(argv, check=True, timeout=60)

    return run


@pytest.fixture(scope="session")
def folder_root(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    """Twelve clips of two classes with a manifest; two are broken and one is missing."""
    root = tmp_path_factory.mktemp("folder")
    lines = ["path,label,split"]
    for number in range(12):
        split = "train" if number < 8 else "val"
        path = make_video(root / "videos" / f"clip {number}.mp4", count=10 + number, seed=number)
        lines.append(f"{path.relative_to(root)},{'ab'[number % 2]},{split}")
    (root / "videos" / "clip 3.mp4").write_bytes(b"no video at all")
    (root / "videos" / "clip 5.mp4").write_bytes(b"")
    (root / "videos" / "clip 9.mp4").unlink()
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def info() -> DatasetInfo:
    return DatasetInfo("folder", ("a", "b"))


@pytest.fixture(scope="session")
def synthetic_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic data set's videos, few and small."""
    root = tmp_path_factory.mktemp("synthetic")
    synthetic.make(root, SYNTHETIC)
    return root


@pytest.fixture(scope="session")
def synthetic_shards(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same, packed."""
    return pack_synthetic(synthetic_root, tmp_path_factory.mktemp("shards"), SYNTHETIC.size)


@pytest.fixture(scope="session")
def tiny_changes() -> dict[str, object]:
    """Changes of the demo's recipe for the small synthetic data set."""
    return TINY


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    """The demo's recipe with these changes."""
    return override(demo(), TINY)


@pytest.fixture(scope="session")
def checkpoints(
    synthetic_shards: str, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """By what the policy acts for, a checkpoint of the small synthetic data: random weights, batch norms that have seen
    its frames. `second` is AdaFocusV2's, of frames in spread order; `plus` AdaFocus+'s, which skips about half; `uni`
    and `uni per clip` are Uni-AdaFocus's."""
    folders = {}
    for regime, changes in {
        "frame": {"model.reuse_glance": True},
        "clip": PER_CLIP,
        "second": {"method": "adafocus-v2", "data.frame_order": "spread"},
        "plus": {"method": "adafocus-plus"},
        "uni": UNI,
        "uni per clip": {**PER_CLIP, **UNI},
    }.items():
        config = override(tiny_config, changes)
        torch.manual_seed(1)
        options = {"batch_size": 8, "train": False}
        loader = ClipLoader(synthetic_shards, "val", config.data, **options)
        model = build_model(config, loader.info.num_classes).train()
        batch = next(iter(loader))
        with torch.no_grad():
            for _ in range(8):
                model(batch.glance_BTCHW, batch.focus_BTCHW, greedy=False)
        if isinstance(model, AdaFocusPlus):
            skip_some(model.eval(), batch.glance_BTCHW)
        meta = Meta.describe(
            config, stage=method_of(config).last, info=loader.info, extraction=loader.spec, digest=loader.digest
        )
        folders[regime] = tmp_path_factory.mktemp("checkpoints") / f"{meta.stage}-{regime}"
        save(folders[regime], model, meta)
    return folders


@pytest.fixture(scope="session")
def tiny_form() -> Callable[[Config], Config]:
    """tiny_form(config) is the tiny form of a recipe."""
    return shrink


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., Batch]:
    """make_batch(config, clips, classes, seed) makes a batch out of noise."""
    return noise_batch


LONGEST = (
    *("test_workers", "test_train", "test_export", "test_parity_uni", "test_parity_v2", "test_parity", "test_stages"),
    *("test_bare_machine", "test_secrets", "test_models", "test_reference_checkpoints", "test_early", "test_predict"),
)
"""Files that take longest: run first, so that no process is left alone with one at the end."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONGEST)
    assert all(uses_ray(item.path) for item in items if item.get_closest_marker("ray"))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where nothing but tests with Ray is wanted, files without one are not imported."""
    only_ray = re.search(r"(^| and )ray\b", config.option.markexpr) and " or " not in config.option.markexpr
    unwanted = only_ray and collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return True if unwanted and not uses_ray(collection_path) else None


@cache
def uses_ray(path: Path) -> bool:
    return "pytest.mark.ray" in path.read_text()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Ray starts in tests marked `ray` alone: `make test` runs these one by one, for several clusters on a machine have
    each all of its memory and processors, and starve each other."""
    with pytest.MonkeyPatch.context() as patch:
        if not item.get_closest_marker("ray"):
            patch.setenv("RAY_TMPDIR", "/dev/null/needs-marker-ray")
        return (yield)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--record` with a file of tests whose records should change: test_golden_losses.py or test_readme.py."""
    parser.addoption("--record", action="store_true", help="write golden losses or the page of settings anew")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `gpu` need one."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here; `make gpu-check` runs these tests where there is one")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def each_device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The device that tensors are made on in the test, without TF32: a CPU, and a GPU where there is one."""
    device = torch.device(request.param)
    with torch.device(device), tf32(False):
        yield device


@pytest.fixture(params=["_reorder_convolution_weight", "_convolution_pointwise"])
def no_fused_convolutions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A CPU on which oneDNN refuses one of the two operators, as it does in bf16 where there is no AVX-512."""

    def refuse(*arguments: object) -> None:
        raise RuntimeError("this path needs the cpu support avx512bw\nException raised from refuse")

    monkeypatch.setattr(torch.ops.mkldnn, request.param, refuse)
    fuse.available.cache_clear()
    yield
    fuse.available.cache_clear()


@pytest.fixture
def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session", autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test, and no process that one starts, writes into the user's MLflow store."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ["ADAFOCUS_RUNS"] = str(tmp_path_factory.mktemp("own-runs"))
