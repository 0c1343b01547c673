"""A file or a folder appears whole or not at all, whatever ends the writing of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from preprocessing.files import atomic_write, partial_path, remove_partials, write_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_replaces_the_older_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_file(path, b"old")
    with atomic_write(path) as partial:
        partial.write_bytes(b"ne")
        assert path.read_bytes() == b"old"
        with partial.open("ab") as file:
            file.write(b"w")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a.json"]


def test_a_folder_appears_with_all_it_holds(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "out") as partial:
        (partial / "below").mkdir(parents=True)
        (partial / "below" / "a").write_text("a")
        assert not (tmp_path / "out").exists()
    assert names(tmp_path) == ["out"] and (tmp_path / "out" / "below" / "a").read_text() == "a"


@pytest.mark.parametrize("folder", [False, True])
def test_an_error_leaves_the_older_one_and_nothing_else(tmp_path: Path, folder: bool) -> None:
    write_file(tmp_path / "a", b"old")
    with pytest.raises(KeyError), atomic_write(tmp_path / "a") as partial:
        partial.mkdir() if folder else partial.write_bytes(b"half")
        raise KeyError
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """/dev/full stands for a full disk: every write to it fails with ENOSPC."""
    with pytest.raises(OSError, match="No space left"), atomic_write(tmp_path / "a") as partial:
        partial.symlink_to("/dev/full")  # a link, for what is half written is removed in the end
        partial.write_bytes(b"x")
    assert names(tmp_path) == []


def test_content_is_flushed_before_the_rename_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed, sync = list[str](), os.fsync

    def record(descriptor: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    write_file(tmp_path / "a", b"x")
    assert Path(flushed[0]).suffix == ".partial" and flushed[1:] == [str(tmp_path)]


def test_a_writer_that_writes_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a"):
        pass
    assert names(tmp_path) == []


def test_a_killed_writer_leaves_only_what_can_be_cleared_away(tmp_path: Path) -> None:
    write_file(tmp_path / "a", b"old")
    code = (
        "import os, pathlib, sys\n"
        "from preprocessing.files import atomic_write\n"
        "with atomic_write(pathlib.Path(sys.argv[1])) as partial:\n"
        "    partial.write_bytes(b'half')\n"
        f"    os.kill(os.getpid(), {signal.SIGKILL:d})\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "a").read_bytes() == b"old" and len(names(tmp_path)) == 2
    remove_partials(tmp_path)
    assert names(tmp_path) == ["a"]


def test_temporary_names_never_meet() -> None:
    assert len({partial_path(Path("a")) for _ in range(1000)}) == 1000
