"""Small real videos and data roots that tests make for themselves."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from adafocus.batches import Batch
from adafocus.checkpoint import Meta, save
from adafocus.config import Config, override
from adafocus.loader import ClipLoader
from adafocus.models.adafocus import build_model
from pipelines.recipes import demo
from preprocessing.datasets import synthetic
from preprocessing.datasets.synthetic import SyntheticSpec
from preprocessing.ffmpeg import encode_video, find_ffmpeg
from preprocessing.index import build_index
from preprocessing.schema import Clip, DatasetInfo, ExtractionSpec
from preprocessing.shards import plan_shards, write_shard
from preprocessing.storage import Store


def numbered_frames(count: int, height: int = 48, width: int = 64, seed: int = 0) -> list[np.ndarray]:
    """Frames whose upper half has the brightness 10 * number and whose lower half is grey texture."""
    rng = np.random.default_rng(seed)
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[:, : height // 2] = (np.arange(count) * 10 % 250)[:, None, None, None]
    coarse = rng.integers(0, 255, (count, height // 8, width // 4, 1), np.uint8)
    frames[:, height // 2 :] = coarse.repeat(4, 1).repeat(4, 2)[:, : height - height // 2]
    return list(frames)


@pytest.fixture(scope="session")
def make_video() -> Callable[..., Path]:
    """make_video(path, count=12, fps=10, height=48, width=64, seed=0) writes an H.264 file."""

    def make(path: Path, count: int = 12, fps: float = 10, height: int = 48, width: int = 64, seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        encode_video(path, numbered_frames(count, height, width, seed), fps)
        return path

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


@pytest.fixture(scope="session")
def write_loop() -> Callable[..., None]:
    """The plain single-process loop over shards that the distributed run has to agree with."""

    def loop(root: Path, clips: list[Clip], out: Path, spec: object, clips_per_shard: int, sizes: list[int]) -> None:
        out.mkdir(parents=True, exist_ok=True)
        for plan in plan_shards(clips, sizes, clips_per_shard):
            write_shard(plan, root, spec, Store(out))

    return loop


@pytest.fixture
def info() -> DatasetInfo:
    return DatasetInfo("folder", ("a", "b"))


SYNTHETIC = SyntheticSpec(num_train=24, num_val=10, num_frames=8, size=40, digit=12, fragments=2)
TINY = {
    "data.num_frames": 4,
    "data.num_focus_frames": 4,
    "data.resize": 40,
    "data.crop": 40,
    "data.crop_scales": (1.0, 0.875),
    "model.glance_size": 20,
    "model.patch_size": 16,
    "model.policy_channels": 4,
    "model.policy_hidden": 16,
    "model.classifier_hidden": 16,
    **{f"{stage}.epochs": 2 for stage in ("pretrain", "warmup", "ppo", "finetune")},
    **{f"{stage}.batch_size": 8 for stage in ("pretrain", "warmup", "ppo", "finetune")},
}
"""Changes of the demo's recipe that make a stage take a second."""


@pytest.fixture(scope="session")
def synthetic_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic data set's videos, few and small."""
    root = tmp_path_factory.mktemp("synthetic")
    synthetic.make(root, SYNTHETIC)
    return root


@pytest.fixture(scope="session")
def synthetic_shards(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same, packed."""
    out, spec = Store(tmp_path_factory.mktemp("shards")), ExtractionSpec(height=SYNTHETIC.size)
    info, clips = synthetic.read_clips(synthetic_root)
    records = [write_shard(plan, synthetic_root, spec, out) for plan in plan_shards(clips, [1] * len(clips), 12)]
    build_index(out, clips, info, spec, records)
    return out.url


@pytest.fixture(scope="session")
def tiny_changes() -> dict[str, object]:
    """Changes of the demo's recipe for the small synthetic data set."""
    return TINY


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    """The demo's recipe with these changes."""
    return override(demo(), TINY)


TRIMMED = {
    "model.family": "trimmed",
    "model.action": "gaussian",
    "model.classifier": "average",
    "model.reuse_glance": True,
    "model.policy_norm": True,
    "data.num_focus_frames": 6,
}
"""Further changes that make it a model of the other family."""


@pytest.fixture(scope="session")
def checkpoints(
    synthetic_shards: str, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """By family, a checkpoint of the small synthetic data: random weights, batch norms that have seen its frames."""
    folders = {}
    for family, changes in {"untrimmed": {"model.reuse_glance": True}, "trimmed": TRIMMED}.items():
        config = override(tiny_config, changes)
        torch.manual_seed(1)
        options = {"batch_size": 8, "train": False, "independent_focus": family == "trimmed"}
        loader = ClipLoader(synthetic_shards, "val", config.data, **options)
        model = build_model(config, loader.info.num_classes).train()
        batch = next(iter(loader))
        with torch.no_grad():
            for _ in range(8):
                model(batch.glance_BTCHW, batch.focus_BTCHW, greedy=False)
        meta = Meta.describe(config, stage="finetune", info=loader.info, extraction=loader.spec, digest=loader.digest)
        folders[family] = tmp_path_factory.mktemp("checkpoints") / f"finetune-{family}"
        save(folders[family], model, meta)
    return folders


def shrink(config: Config) -> Config:
    """The tiny form of a recipe: small networks, few and small frames; all else as it is."""
    focus_frames = 4 if config.model.family == "untrimmed" else 6
    small = {
        "data.num_frames": 4,
        "data.num_focus_frames": focus_frames,
        "data.resize": 56,
        "data.crop": 48,
        "model.glancer": "tiny_glance",
        "model.focuser": "tiny",
        "model.glancer_weights": "none",
        "model.focuser_weights": "none",
        "model.glance_size": 24,
        "model.patch_size": 48 * config.model.patch_size // config.data.crop,
        "model.policy_channels": 4,
        "model.policy_hidden": 16,
        "model.classifier_hidden": 16,
    }
    return override(config, small)


def noise_batch(config: Config, clips: int, classes: int, seed: int) -> Batch:
    """Frames of smooth noise and labels, the same bits on every machine."""
    rng = np.random.RandomState(seed)

    def frames(count: int) -> torch.Tensor:
        cells = rng.randint(0, 256, (clips, count, 3, config.data.crop // 8, config.data.crop // 8))
        return torch.from_numpy(cells.repeat(8, 3).repeat(8, 4).astype(np.uint8))

    glance = frames(config.data.num_frames)
    focus = frames(config.data.num_focus_frames) if config.model.family == "trimmed" else glance
    labels = torch.from_numpy(rng.randint(0, classes, (clips, 1)))
    return Batch(glance, focus, labels, [f"clip {number}" for number in range(clips)])


@pytest.fixture(scope="session")
def tiny_form() -> Callable[[Config], Config]:
    """tiny_form(config) is the tiny form of a recipe."""
    return shrink


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., Batch]:
    """make_batch(config, clips, classes, seed) makes a batch out of noise."""
    return noise_batch


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest tests/adafocus/test_golden_losses.py --record` after a change that should move the numbers."""
    parser.addoption("--record", action="store_true", help="write the golden losses anew instead of comparing")


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
