"""The same data set on an S3 server as on the disk."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from helpers.packing import finish, start
from helpers.s3_server import s3_server, s3_url
from pipelines.visualize.contact_sheet import contact_sheet
from preprocessing.files import partial_path
from preprocessing.schema import UserError
from preprocessing.shards.index import read_index, read_metadata
from preprocessing.shards.mapped_index import map_index
from preprocessing.shards.storage import Store
from preprocessing.shards.verify import Problem, verify


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """URL of an empty folder of a bucket, with a place for its name."""
    with s3_server() as (host, port):
        yield s3_url(f"{host}:{port}", "data%s")


def test_s3_holds_the_same_bytes(
    bucket: str, folder_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far, near = Store(bucket % 1), Store(tmp_path / "near")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    assert far.sizes() == {}
    with pytest.raises(UserError, match=r"there is no finished data set|no index.parquet"):
        read_index(far)
    assert finish(*start(folder_root, far.url)).digest == finish(*start(folder_root, near.url)).digest
    tars = sorted(name for name in near.sizes() if name.endswith(".tar"))
    assert all(far.read(name) == near.read(name) for name in tars)
    assert not [item for item in verify(far) if isinstance(item, Problem)]
    index, path = map_index(far)
    assert index.digest == read_index(near).digest == read_metadata(far).digest
    assert path.parent == tmp_path / "scratch"
    contact_sheet(far, index, tmp_path / "sheet.png", clips=3, frames=4, height_px=24)
    assert Image.open(io.BytesIO((tmp_path / "sheet.png").read_bytes())).size[1] == 3 * (24 + 16)


def test_s3_goes_on_where_it_stopped(bucket: str, folder_root: Path) -> None:
    store = Store(bucket % 2)
    digest = finish(*start(folder_root, store.url)).digest
    store.delete("train-000000.tar")
    assert finish(*start(folder_root, store.url)).digest == digest


def test_bad_urls_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot use gopher://x/y as a folder"):
        Store("gopher://x/y").sizes()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        Store(tmp_path / "file" / "below").create()


@pytest.mark.parametrize("name", ["../a.tar", "/etc/passwd", "x/../../a", "..", "..\\a", "a\0"])
def test_names_do_not_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path)
    for use in (store.open, store.open_stream, store.exists, store.version, store.delete):
        with pytest.raises(UserError, match="it leads out of that folder"):
            use(name)


def test_what_is_put_appears_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.atomic_write("a.bin") as partial:
        partial.write_bytes(b"half")
        assert store.sizes() == {}
    assert store.sizes() == {"a.bin": 4}
    partial_path(tmp_path / "b.bin").write_bytes(b"left by a killed run")
    store.remove_partials()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin"]
