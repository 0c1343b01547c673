"""A tar that is written as a stream is a plain tar, and forgets what failed."""

from __future__ import annotations

import hashlib
import io
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from preprocessing.shards.archive import TarStream, _header, frame_offsets


@given(st.from_regex(r"[!-~]{1,100}", fullmatch=True), st.integers(0, 8**11 - 1))
def test_headers_are_those_of_tarfile(name: str, size: int) -> None:
    item = tarfile.TarInfo(name)
    item.size = size
    assert _header(name, size) == item.tobuf(tarfile.USTAR_FORMAT)


@given(st.lists(st.tuples(st.binary(max_size=2000), st.booleans()), max_size=12))
def test_tar_stream_equals_tarfile_and_forgets_what_failed(members: list[tuple[bytes, bool]]) -> None:
    buffer = io.BytesIO()
    tar, offsets, kept = TarStream(buffer), [], []
    for number, (data, fails) in enumerate(members):
        mark = tar.mark()
        offset = tar.add(f"{number}.bin", data)
        if fails:
            tar.back_to(mark)
        else:
            offsets.append(offset)
            kept.append((f"{number}.bin", data))
    sha256 = tar.close()
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as archive:
        found = archive.getmembers()
        assert [(item.name, archive.extractfile(item).read()) for item in found] == kept
        assert [item.offset_data for item in found] == offsets
        assert frame_offsets(offsets[0], [item.size for item in found]) == offsets if offsets else True
        assert {(item.mtime, item.uid, item.uname) for item in found} <= {(0, 0, "")}

    assert hashlib.sha256(buffer.getvalue()).hexdigest() == sha256
