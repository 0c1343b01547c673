"""The distributed run gives what the plain loop gives, and survives what happens to machines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import ray
from filelock import FileLock

from helpers.packing import pack
from pipelines.preprocess.request import Request
from pipelines.preprocess.run import estimate, preprocess
from preprocessing.datasets import find_dataset
from preprocessing.ffmpeg.program import ffmpeg_version, find_ffmpeg
from preprocessing.schema import ExtractionSpec, UserError
from preprocessing.shards.index import read_index
from preprocessing.shards.planning.job import Job
from preprocessing.shards.planning.plan import plan_shards
from preprocessing.shards.storage import Store
from preprocessing.shards.verify import Problem, verify
from preprocessing.shards.writer import write_shard
from preprocessing.sources import measure_sources

pytestmark = pytest.mark.ray

SPEC = ExtractionSpec(height=48)


@pytest.fixture(scope="module")
def local_ray() -> Iterator[str]:
    """Address of a Ray that all tests here share."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture(scope="module")
def loop_tars(folder_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Tars that a plain single-process loop writes, by name."""
    out = tmp_path_factory.mktemp("loop")
    info, clips = find_dataset("folder").read_clips(folder_root)
    job = Job(Store(out), folder_root, info, SPEC, clips_per_shard=3)
    pack(job, clips, measure_sources(folder_root, clips))
    return {path.name: path.read_bytes() for path in out.glob("*.tar")}


def tars(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*.tar")}


def ffmpegs(root: Path) -> list[int]:
    """Processes that decode videos below `root`."""
    pids = []
    for process in psutil.process_iter(["name", "cmdline"]):
        if "ffmpeg" in (process.info["name"] or "") and any(
            str(root) in part for part in process.info["cmdline"] or []
        ):
            pids.append(process.pid)
    return pids


def command(root: Path, out: Path, *more: str) -> list[str]:
    options = ["--data-root", str(root), "--out", str(out), "--height", "48", "--clips-per-shard", "3"]
    return [sys.executable, "-m", "pipelines.cli", "preprocess", "--dataset", "folder", *options, *more]


def test_ray_writes_the_bytes_of_the_plain_loop(
    local_ray: str, folder_root: Path, tmp_path: Path, loop_tars: dict[str, bytes]
) -> None:
    summary = preprocess(Request("folder", folder_root, str(tmp_path), spec=SPEC, clips_per_shard=3))
    assert tars(tmp_path) == loop_tars
    assert summary["statuses"] == {"missing": 1, "ok": 9, "probe_failed": 2}
    assert (summary["clips"], summary["failed"], summary["shards_written"]) == (12, 3, len(loop_tars))
    index = read_index(Store(tmp_path))
    assert index.table["clip_id"].to_pylist() == [f"videos/clip {number}.mp4" for number in range(12)]
    assert not [item for item in verify(Store(tmp_path)) if isinstance(item, Problem)]
    again = preprocess(Request("folder", folder_root, str(tmp_path), spec=SPEC, clips_per_shard=3))
    assert (again["shards_written"], again["digest"]) == (0, summary["digest"])


def test_options_reach_the_shards(local_ray: str, folder_root: Path, tmp_path: Path) -> None:
    spec = ExtractionSpec(height=24, fps=5, max_frames=4, quality=8)
    summary = preprocess(Request("folder", folder_root, str(tmp_path), spec=spec, splits=("train",), limit=2))
    index = read_index(Store(tmp_path))
    assert index.spec == spec
    assert index.table["num_frames"].to_pylist() == [4, 4]
    assert set(index.table["height"].to_pylist()) == {24}
    assert summary["splits"] == {"train": 2}


def test_what_cannot_work_is_told_before_anything_is_written(local_ray: str, folder_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        preprocess(Request("folder", tmp_path / "nowhere", str(tmp_path / "out"), spec=SPEC))
    root = tmp_path / "root"
    root.mkdir()
    (root / "manifest.csv").write_text("path,label,split\na.mp4,x,train\n")
    with pytest.raises(UserError, match=r"none of the 1 clips is below .* \(the first would be a.mp4\)"):
        preprocess(Request("folder", root, str(tmp_path / "out"), spec=SPEC))
    (tmp_path / "a.mp4").touch()
    (root / "a.mp4").symlink_to(tmp_path / "a.mp4")
    with pytest.raises(UserError, match=r"none of the 1 clips is below .* \('a.mp4' leaves the data root by a link: "):
        preprocess(Request("folder", root, str(tmp_path / "out"), spec=SPEC))
    assert not (tmp_path / "out").exists()


def test_two_runs_into_one_folder_are_refused(local_ray: str, folder_root: Path, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(UserError, match="another run is writing to"):
        preprocess(Request("folder", folder_root, str(tmp_path), spec=SPEC))


def test_no_space_left_is_told(folder_root: Path, tmp_path: Path) -> None:
    """/dev/full stands for a full disk: every write to it fails with ENOSPC."""
    (tmp_path / "out").mkdir()
    info, clips = find_dataset("folder").read_clips(folder_root)

    class FullStore(Store):
        @contextmanager
        def atomic_write(self, name: str) -> Iterator[Path]:
            with super().atomic_write(name) as partial:
                partial.symlink_to("/dev/full")  # a link, for what is half written is removed in the end
                yield partial

    (plan,) = plan_shards(clips[:2], [1, 1], 4)
    with pytest.raises(UserError, match=r"no space left for .*train-000000.tar: free some"):
        write_shard(Job(FullStore(tmp_path / "out"), folder_root, info, SPEC), plan)
    assert not list((tmp_path / "out").iterdir())


def test_estimate_is_near_the_truth(local_ray: str, folder_root: Path, tmp_path: Path) -> None:
    told = estimate(Request("folder", folder_root, str(tmp_path / "out"), spec=SPEC, clips_per_shard=3))
    assert (told["clips"], told["found"], told["missing"], told["shards"]) == (12, 11, 1, 5)
    assert not (tmp_path / "out").exists()
    summary = preprocess(Request("folder", folder_root, str(tmp_path / "out"), spec=SPEC, clips_per_shard=3))
    assert told["num_frames"] == pytest.approx(summary["num_frames"], rel=0.2)
    tar_bytes = sum(record.num_bytes for record in read_index(Store(tmp_path / "out")).shards)
    assert told["num_bytes"] == pytest.approx(tar_bytes, rel=0.5)


def test_command_line(local_ray: str, folder_root: Path, tmp_path: Path) -> None:
    """Exit status 1 for too many failures, 2 for what the user has to change, and JSON for programs."""
    joined = command(folder_root, tmp_path / "o", "--json", "--ray-address", local_ray)
    done = subprocess.run(joined, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["failed"] == 3
    assert "more than 5% of the clips failed" in done.stderr
    done = subprocess.run(
        command(folder_root, tmp_path / "o", "--max-failures", "3"), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "3 clips failed: `adafocus inspect" in done.stdout
    done = subprocess.run(command(folder_root, tmp_path / "o", "--height", "9"), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "adafocus: allowed is --height 16 to 4320\n")
    verbs = [sys.executable, "-m", "pipelines.cli"]
    done = subprocess.run([*verbs, "verify", str(tmp_path / "o")], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split(": ")[-1]) == (0, "no problems\n")
    sheet = tmp_path / "sheet.png"
    inspect = [*verbs, "inspect", str(tmp_path / "o"), "--failed", "--json", "--sheet", str(sheet)]
    done = subprocess.run(inspect, capture_output=True, text=True, timeout=60)
    assert [row["status"] for row in json.loads(done.stdout)] == ["probe_failed", "probe_failed", "missing"]
    assert sheet.read_bytes().startswith(b"\x89PNG")
    nobody = command(folder_root, tmp_path / "p", "--ray-address", "127.0.0.1:1")
    done = subprocess.run(nobody, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.splitlines()[-1][:43]) == (2, "adafocus: no Ray cluster at '127.0.0.1:1': ")
    (tmp_path / "o" / "val-000004.tar").write_bytes(b"x")
    done = subprocess.run([*verbs, "verify", str(tmp_path / "o"), "--json"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert json.loads(done.stdout)["problems"][0]["shard"] == "val-000004.tar"


@pytest.fixture(scope="module")
def slow_root(tmp_path_factory: pytest.TempPathFactory, run_ffmpeg: Callable[..., None]) -> Path:
    """Eight clips of half a second of work each, two of which are extracted at once: time to be interrupted."""
    root = tmp_path_factory.mktemp("slow")
    first = root / "0.mp4"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:r=30:d=8", "-preset", "ultrafast", first)
    lines = ["path,label,split"]
    for number in range(8):
        if number:
            os.link(first, root / f"{number}.mp4")
        lines.append(f"{number}.mp4,{number % 2},train")
    (root / "manifest.csv").write_text("\n".join(lines))
    return root


def _heed_interrupts() -> None:
    """A shell lets what it starts in the background ignore Ctrl-C, and so would the run if the tests run there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupt(root: Path, out: Path, number: int) -> tuple[int, float]:
    """Start a run, send it a signal when the first shard stands, return exit status and seconds until it was gone."""
    process = subprocess.Popen(
        [*command(root, out), "--clips-per-shard", "1", "--height", "360"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_heed_interrupts,
    )
    deadline = time.monotonic() + 90
    while not list(out.glob("*.parquet")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    sent = time.monotonic()
    process.send_signal(number)
    process.wait(30)
    return process.returncode, time.monotonic() - sent


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL])
def test_interrupted_run_leaves_no_ffmpeg_and_goes_on(
    local_ray: str, slow_root: Path, tmp_path: Path, number: int
) -> None:
    status, seconds = interrupt(slow_root, tmp_path, number)
    assert status == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert seconds < 25
    deadline = time.monotonic() + 15
    while ffmpegs(slow_root):
        assert time.monotonic() < deadline, "an ffmpeg outlived its run"
        time.sleep(0.1)
    finished = {path.stem: os.stat(path.with_suffix(".tar")).st_mtime_ns for path in tmp_path.glob("*.parquet")}
    assert 0 < len(finished) < 8
    assert not (tmp_path / "index.parquet").exists()
    preprocess(Request("folder", slow_root, str(tmp_path), spec=ExtractionSpec(height=360), clips_per_shard=1))
    index = read_index(Store(tmp_path))
    assert index.table["clip_id"].to_pylist() == [f"{number}.mp4" for number in range(8)]
    assert set(index.table["status"].to_pylist()) == {"ok"}
    for name, written in finished.items():
        assert os.stat(tmp_path / f"{name}.tar").st_mtime_ns == written, "a finished shard was done twice"
    assert len({record.sha256 for record in index.shards}) == 8  # keys differ
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


def test_an_extraction_that_cannot_succeed_stops_early(
    tmp_path: Path, local_ray: str, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(40):
        (tmp_path / "root" / "a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / "a" / f"{number}.mp4").write_text("no video")
    request = Request("folder", tmp_path / "root", str(tmp_path / "out"), SPEC, clips_per_shard=8)
    with caplog.at_level("INFO"), pytest.raises(UserError, match="clips failed alike: moov atom not found"):
        preprocess(request, ray_address=local_ray)
    assert find_ffmpeg() in caplog.text and ffmpeg_version() in caplog.text
    assert not (tmp_path / "out" / "index.parquet").exists()
    summary = preprocess(request, stop_if_alike=False, ray_address=local_ray)
    assert summary["statuses"] == {"probe_failed": 40}
