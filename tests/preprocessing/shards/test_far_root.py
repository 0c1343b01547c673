"""Videos on object storage are packed to the same bytes as those on a disk, and nothing of them stays behind."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pyarrow.fs as pafs
import pytest

from helpers.packing import SPEC
from helpers.s3_server import BUCKET, s3_server, s3_url
from helpers.slow_proxy import SlowProxy
from pipelines.preprocess.request import Request
from pipelines.preprocess.run import estimate
from preprocessing.schema import Clip, UserError
from preprocessing.shards import far_root
from preprocessing.shards.build_index import build_index
from preprocessing.shards.far_root import FarRoot
from preprocessing.shards.index import Index
from preprocessing.shards.planning import estimate as planning
from preprocessing.shards.planning.worklist import open_worklist
from preprocessing.shards.storage import Store
from preprocessing.shards.writer import write_shard
from preprocessing.sources import measure_sources


@pytest.fixture(scope="module")
def proxy() -> Iterator[SlowProxy]:
    with s3_server() as (host, port), SlowProxy(host, port) as far:
        yield far


@pytest.fixture(scope="module")
def url(proxy: SlowProxy, folder_root: Path) -> str:
    """The twelve clips of a folder, two of them broken and one missing, on the server."""
    address = s3_url(proxy.address, "videos")
    store = Store(address)
    root = store.path("").rstrip("/")
    pafs.copy_files(str(folder_root), root, source_filesystem=pafs.LocalFileSystem(), destination_filesystem=store.fs)
    return address


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def pack_all(data_root: Path | str, out: Path) -> Index:
    with Request("folder", data_root, str(out), SPEC, clips_per_shard=4).opened() as (job, clips):
        job.store.create()
        work = open_worklist(job, clips, measure_sources(job.root, clips))
        return build_index(job, clips, [write_shard(job, plan) for plan in work.plans])


def test_the_shards_are_the_same_bytes(url: str, folder_root: Path, tmp_path: Path, scratch: Path) -> None:
    near, far = pack_all(folder_root, tmp_path / "near"), pack_all(url, tmp_path / "far")
    assert near.digest == far.digest and near.shards == far.shards
    assert near.table["status"].to_pylist() == far.table["status"].to_pylist()
    assert not [*scratch.iterdir()]


def test_a_clip_is_there_only_while_it_is_read(url: str, folder_root: Path, scratch: Path) -> None:
    root = FarRoot(url)
    with root.fetched("videos/clip 0.mp4", is_folder=False) as path:
        assert path.read_bytes() == (folder_root / "videos" / "clip 0.mp4").read_bytes()
    with root.fetched("videos", is_folder=True) as folder:
        assert len([*folder.iterdir()]) == 11
    with root.fetched("videos/none.mp4", is_folder=False) as path:
        assert not path.exists()
    for name in ("../other/a.mp4", "/etc/passwd", "a/../../b"):
        with pytest.raises(ValueError, match="leaves the data root"), root.fetched(name, is_folder=False):
            pass
    assert not [*scratch.iterdir()]


def test_names_with_dots_and_backslashes_are_names(proxy: SlowProxy, tmp_path: Path, scratch: Path) -> None:
    store = Store(s3_url(proxy.address, "dots"))
    names = ["wait...what.mp4", "..hidden.mp4", r"back\slash.mp4"]
    for name in names:
        with store.fs.open_output_stream(f"{store.path('').rstrip('/')}/{name}") as file:
            file.write(name.encode())
    root, mirror = FarRoot(store.url), tmp_path / "mirror"
    mirror.mkdir()
    root.mirror(mirror)
    assert sorted(path.name for path in mirror.iterdir()) == sorted(names)
    for name in names:
        with root.fetched(name, is_folder=False) as path:
            assert path.read_bytes() == name.encode()


def test_an_error_in_the_block_names_the_url_and_not_the_mirror(url: str, tmp_path: Path, scratch: Path) -> None:
    opened = Request("folder", url, str(tmp_path), SPEC).opened()
    with pytest.raises(UserError, match=r"^s3://shards/videos.*/boxes.csv:2: no such frame"), opened as (job, _):
        raise UserError(f"{job.root}/boxes.csv:2: no such frame")


def test_an_estimate_needs_no_more(url: str, folder_root: Path, tmp_path: Path, scratch: Path) -> None:
    near, far = (estimate(Request("folder", root, str(tmp_path / "o"), SPEC)) for root in (folder_root, url))
    varying = {"cpu_hours": 0, "free_bytes": 0}
    assert {**near, **varying} == {**far, **varying}


@pytest.mark.parametrize("start_s", [None, 60.0], ids=["whole", "cut"])
def test_of_large_files_an_estimate_reads_the_ends_alone(
    start_s: float | None,
    proxy: SlowProxy,
    tmp_path: Path,
    make_video: Callable[..., Path],
    run_ffmpeg: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    scratch: Path,
) -> None:
    root, store = tmp_path / "root", Store(s3_url(proxy.address, f"large{start_s}"))
    root.mkdir()
    short = make_video(tmp_path / "short.mp4", count=100)
    run_ffmpeg("-stream_loop", 29, "-i", short, "-c", "copy", root / "a.mp4")  # with its index at its end
    start = "" if start_s is None else f"{start_s:g}"
    (root / "manifest.csv").write_text(f"path,label,split,start_s\na.mp4,a,train,{start}\n")
    size = (root / "a.mp4").stat().st_size
    far = store.path("").rstrip("/")
    pafs.copy_files(str(root), far, source_filesystem=pafs.LocalFileSystem(), destination_filesystem=store.fs)
    first, end = size // 8, size // 4
    monkeypatch.setattr(far_root, "_LEAST_END", end)
    for name in ("_FETCHED", "_SIZE_FETCHED"):
        monkeypatch.setattr(planning, name, first)
    with FarRoot(store.url).fetched("a.mp4", False, first) as path:
        data, there = (root / "a.mp4").read_bytes(), path.read_bytes()
    assert there == data[:first] + bytes(size - first - end) + data[-end:]
    before = proxy.num_bytes
    near, cost = (estimate(Request("folder", each, str(tmp_path / "o"), SPEC)) for each in (root, store.url))
    assert proxy.num_bytes - before < first + end + 20_000 and first + end + 20_000 < size
    assert cost["sample_problems"] == [] and cost["num_frames"] == near["num_frames"] > 1000
    assert cost["num_bytes"] == pytest.approx(near["num_bytes"], rel=0.1)
    with Request("folder", store.url, str(tmp_path / "o"), SPEC, shard_bytes=1).opened() as (job, clips):
        packed = planning.estimate_packed_size(job, clips, measure_sources(job.root, clips))
    assert packed.per_source_byte == pytest.approx(near["num_bytes"] / size, rel=0.1)
    monkeypatch.setattr(far_root, "_LEAST_END", 100)
    (problem,) = estimate(Request("folder", store.url, str(tmp_path / "o"), SPEC))["sample_problems"]
    assert problem[1] == "probe_failed" and f"of {size} bytes {first} and the end were fetched: " in problem[2]


def test_what_is_wrong_is_said_of_the_url(
    url: str, proxy: SlowProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scratch: Path
) -> None:
    monkeypatch.setattr(far_root, "WAITS_S", (0.01,))
    with pytest.raises(UserError, match="there are no files below s3://shards/nothing"):
        pack_all(s3_url(proxy.address, "nothing"), tmp_path)
    store = Store(s3_url(proxy.address, "bad"))
    store.write(b"path,label,split\na.mp4,a,nowhere\n", "manifest.csv")
    with pytest.raises(UserError, match=r"s3://shards/bad.*manifest.csv:2"):
        pack_all(store.url, tmp_path)
    with pytest.raises(UserError, match="synthetic makes its videos itself"):
        Request("synthetic", url, str(tmp_path), SPEC).opened().__enter__()
    with Request("folder", url, str(tmp_path), SPEC).opened() as (job, clips):
        proxy.to_lose = 10_000
        with pytest.raises(UserError, match=r"clip 0\.mp4 of s3://shards/videos"), job.source(_first(clips)):
            pass
        proxy.to_lose = 0


def _first(clips: list[Clip]) -> Clip:
    return next(clip for clip in clips if clip.source.endswith("clip 0.mp4"))


def rows_of(address: str, out: Path) -> dict[str, tuple[str, str]]:
    table = pack_all(address, out).table
    columns = (table[name].to_pylist() for name in ("clip_id", "status", "error"))
    return {clip_id: (status, error) for clip_id, status, error in zip(*columns, strict=True)}


def put(proxy: SlowProxy, folder: str, names: list[str], data: bytes) -> Store:
    """Objects with any names, in a folder of the bucket."""
    host, port = proxy.target
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    for name in names:
        client.put_object(Bucket=BUCKET, Key=f"{folder}/{name}", Body=b"" if name.endswith("/") else data)
    return Store(s3_url(proxy.address, folder))


def test_odd_names_of_objects_are_clips_or_said(
    proxy: SlowProxy, make_video: Callable[..., Path], tmp_path: Path, scratch: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_video(tmp_path / "a.mp4").read_bytes()
    good = ["a b/1 2.mp4", "a b/-x.mp4", "a+b/x%20y.mp4", "a#b/q?.mp4", "\u65e5\u672c/\xe9.mp4", "c/7.mp4/8.mp4"]
    bad = ["a//1.mp4", "a/../2.mp4", "a/./3.mp4", "c/7.mp4", "c/" + "x" * 260 + ".mp4"]
    store = put(proxy, "odd", [*good, *bad, "c/", "empty/"], data)
    found = rows_of(store.url, tmp_path / "out")
    assert sorted(found) == sorted(good) and {status for status, _ in found.values()} == {"ok"}
    assert f"{len(bad)} objects are left out" in caplog.text


@pytest.mark.parametrize("fault", ["gone", "forbidden", "shorter"])
def test_an_object_that_cannot_be_fetched_costs_its_own_row(
    fault: str,
    proxy: SlowProxy,
    make_video: Callable[..., Path],
    tmp_path: Path,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(far_root, "WAITS_S", (0.01,))
    data = make_video(tmp_path / "a.mp4").read_bytes()
    store = put(proxy, fault, ["a/1.mp4", "a/2.mp4", "b/3.mp4"], data)
    real, opened = FarRoot._size, FarRoot._path

    def size(self: FarRoot, name: str) -> dict[str, int]:
        found = real(self, name)
        if name == "a/2.mp4" and fault == "gone":
            store.fs.delete_file(f"{store.path('').rstrip('/')}/{name}")
        return {"": found[""] + 1} if name == "a/2.mp4" and fault == "shorter" else found

    def path(self: FarRoot, name: str) -> str:
        if name == "a/2.mp4" and fault == "forbidden":
            raise PermissionError("ACCESS_DENIED (HTTP status 403)")
        return opened(self, name)

    monkeypatch.setattr(FarRoot, "_size", size)
    monkeypatch.setattr(FarRoot, "_path", path)
    found = rows_of(store.url, tmp_path / "out")
    words = {"gone": "does not exist", "forbidden": "403", "shorter": f"{len(data)} bytes came of {len(data) + 1}"}
    status, error = found.pop("a/2.mp4")
    assert status == "missing" and error.startswith("a/2.mp4 cannot be fetched: ") and words[fault] in error
    assert {status for status, _ in found.values()} == {"ok"}
    (problem,) = estimate(Request("folder", store.url, str(tmp_path / "o"), SPEC))["sample_problems"] or [None]
    assert problem is None if fault == "gone" else problem[:2] == ("a/2.mp4", "missing")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s3://", "it names no bucket"),
        ("s3://bucket/my videos", "write a space as %20"),
        ("s3://bucket/x?colour=red", "Unexpected query parameter"),
        ("ftp://host/x", "Unrecognized filesystem type"),
    ],
)
def test_an_address_that_is_none_is_one_line(address: str, words: str, tmp_path: Path, scratch: Path) -> None:
    with pytest.raises(UserError, match=words) as raised:
        pack_all(address, tmp_path)
    assert "\n" not in str(raised.value)
