"""A real cluster of several nodes on one machine loses a node in the middle of the work."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

from helpers.packing import pack
from pipelines.preprocess.request import Request
from pipelines.preprocess.run import preprocess
from preprocessing.datasets import find_dataset
from preprocessing.schema import ExtractionSpec
from preprocessing.shards.index import read_index
from preprocessing.shards.planning.job import Job
from preprocessing.shards.storage import Store
from preprocessing.shards.verify import Problem, verify
from preprocessing.sources import measure_sources

pytestmark = pytest.mark.ray

SPEC = ExtractionSpec(height=240)
NUM_CLIPS = 12


def make_root(root: Path, run_ffmpeg: Callable[..., None]) -> None:
    """Clips of a second of work each."""
    root.mkdir()
    lines = ["path,label,split"]
    for number in range(NUM_CLIPS):
        if number in (0, 8):  # a file is in one split alone
            source = f"testsrc2=s=320x240:r=30:d={16 + number / 8}"
            run_ffmpeg("-f", "lavfi", "-i", source, "-preset", "ultrafast", root / f"{number}.mp4")
        else:
            os.link(root / f"{8 * (number > 8)}.mp4", root / f"{number}.mp4")
        lines.append(f"{number}.mp4,{number % 2},{'val' if number > 7 else 'train'}")
    (root / "manifest.csv").write_text("\n".join(lines))


def kill_node(node: object) -> list[int]:
    """kill -9 of a node's raylet and all that it started. Returns the processes that were killed."""
    (raylet,) = [info.process for info in node.all_processes["raylet"]]
    family = [*psutil.Process(raylet.pid).children(recursive=True), psutil.Process(raylet.pid)]
    for process in family:
        os.kill(process.pid, signal.SIGKILL)
    return [process.pid for process in family]


@pytest.mark.slow
def test_node_killed_in_mid_run(tmp_path: Path, run_ffmpeg: Callable[..., None]) -> None:
    root, out, loop = tmp_path / "root", tmp_path / "out", tmp_path / "loop"
    make_root(root, run_ffmpeg)
    info, clips = find_dataset("folder").read_clips(root)
    pack(Job(Store(loop), root, info, SPEC, clips_per_shard=1), clips, measure_sources(root, clips))

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        doomed = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        killed: list[int] = []
        finished_before: list[Path] = []

        def kill_when_at_work() -> None:
            while len(list(out.glob("*.parquet"))) < 2:
                time.sleep(0.02)
            finished_before.extend(out.glob("*.parquet"))
            killed.extend(kill_node(doomed))

        killer = threading.Thread(target=kill_when_at_work, daemon=True)
        killer.start()
        summary = preprocess(
            Request("folder", root, str(out), spec=SPEC, clips_per_shard=1), ray_address=cluster.address
        )
        killer.join(1)
    finally:
        cluster.shutdown()

    assert killed and len(finished_before) < NUM_CLIPS, "the node was not killed in mid-run"
    assert {path.name: path.read_bytes() for path in out.glob("*.tar")} == {
        path.name: path.read_bytes() for path in loop.glob("*.tar")
    }
    assert read_index(Store(out)).table["clip_id"].to_pylist() == [f"{number}.mp4" for number in range(NUM_CLIPS)]
    assert summary["statuses"] == {"ok": NUM_CLIPS}
    assert not [item for item in verify(Store(out)) if isinstance(item, Problem)]
