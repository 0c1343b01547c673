"""A folder for results, here or far away: the same few operations on a path and on s3://, gs:// URLs.

What is put appears under its name whole or not at all.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from preprocessing import files
from preprocessing.addresses import absolute, is_url, without_secrets
from preprocessing.schema import UserError


class Store:
    """Files by name in one folder. Picklable, so that tasks on other machines can write to it."""

    def __init__(self, url: str | Path) -> None:
        """Raises UserError for an empty name, which would be the working folder."""
        if not str(url):
            raise UserError("the name of the folder of the shards is empty: is a variable of the shell not set?")
        self.url = absolute(str(url))  # a task on another machine has another working folder
        self.shown = without_secrets(self.url)
        self.local: Path | None = None if is_url(self.url) else Path(self.url)
        self._fs: pafs.FileSystem | None = None
        self._root, self._process = "", 0

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.url,)

    @property
    def fs(self) -> pafs.FileSystem:
        """The file system behind the URL. Raises UserError if there is none for it."""
        if self._fs is None or self._process != os.getpid():  # connections do not outlive a fork
            if self.local is not None:
                self._fs, self._root = pafs.LocalFileSystem(), str(self.local)
            else:
                try:
                    self._fs, self._root = pafs.FileSystem.from_uri(self.url)
                except (pa.ArrowInvalid, OSError, ValueError) as error:
                    reason = without_secrets(" ".join(str(error).split()))[:300]
                    hint = " (write a space as %20)" if " " in self.url else ""
                    raise UserError(f"cannot use {self.shown} as a folder: {reason}{hint}") from None
                if not self._root.strip("/"):
                    raise UserError(f"cannot use {self.shown} as a folder: it names no bucket")
            self._process = os.getpid()  # last: other threads take the file system for this process's from now on
        return self._fs

    def path(self, name: str) -> str:
        """Path of the file `name` in `fs`. Raises UserError for a name that leads out of the folder: it may come from
        an index that a stranger wrote."""
        fs = self.fs  # sets the root
        del fs
        if "/" in name or "\\" in name or "\0" in name or name in (".", ".."):
            raise UserError(f"{name!r} names no file in {self.shown}: it leads out of that folder")
        return f"{self._root.rstrip('/')}/{name}"

    def create(self) -> None:
        """Make the folder if need be. Raises UserError if that cannot be."""
        try:
            if self.local is not None:
                self.local.mkdir(parents=True, exist_ok=True)
            else:
                self.fs.create_dir(self._root or self.path("").rstrip("/"), recursive=True)
        except OSError as error:
            raise UserError(f"cannot write to {self.shown}: {without_secrets(str(error))}") from None

    def sizes(self) -> dict[str, int]:
        """Bytes of every committed file, by name. Empty if the folder does not exist."""
        if self.local is not None:
            if not self.local.is_dir():
                return {}
            entries = [entry for entry in os.scandir(self.local) if entry.is_file()]
            return {entry.name: entry.stat().st_size for entry in entries if not entry.name.endswith(files.PARTIAL)}
        fs, root = self.fs, self.path("").rstrip("/")
        try:
            infos = fs.get_file_info(pafs.FileSelector(root, allow_not_found=True))
        except OSError as error:
            raise UserError(f"cannot list {self.shown}: {without_secrets(str(error))}") from None
        return {info.base_name: info.size for info in infos if info.is_file}

    def exists(self, name: str) -> bool:
        return bool(self.fs.get_file_info(self.path(name)).is_file)

    def version(self, name: str) -> tuple[int, ...]:
        """Numbers that change when a file is replaced. Raises FileNotFoundError."""
        if self.local is not None:
            stat = Path(self.path(name)).stat()
            return stat.st_ino, stat.st_size, stat.st_mtime_ns
        info = self.fs.get_file_info(self.path(name))
        if not info.is_file:
            raise FileNotFoundError(f"{self.shown}/{name}")
        return info.size, info.mtime_ns

    def open(self, name: str) -> pa.NativeFile:
        """A seekable file to read. Raises FileNotFoundError."""
        return self.fs.open_input_file(self.path(name))

    def open_stream(self, name: str) -> pa.NativeFile:
        """A file to read from front to back. Raises FileNotFoundError."""
        return self.fs.open_input_stream(self.path(name), buffer_size=4 << 20)

    def read(self, name: str) -> bytes:
        with self.open(name) as file:
            return bytes(file.read())

    @contextmanager
    def atomic_write(self, name: str) -> Iterator[Path]:
        """A temporary path on this machine to write a file to. It becomes `name` when the block ends: renamed, or
        uploaded in one piece. If the block raises, nothing changes."""
        if self.local is not None:
            with files.atomic_write(self.local / name) as partial:
                yield partial
            return
        partial = files.partial_path(Path(tempfile.gettempdir()) / name)
        try:
            yield partial
            with open(partial, "rb") as source, self.fs.open_output_stream(self.path(name)) as target:
                shutil.copyfileobj(source, target, 8 << 20)
        finally:
            files.remove(partial)

    def write(self, data: bytes, name: str) -> None:
        """Put `data` under `name`, whole or not at all."""
        with self.atomic_write(name) as partial:
            partial.write_bytes(data)

    def delete(self, name: str) -> None:
        """Remove a file; nothing happens if it is not there."""
        if self.exists(name):
            self.fs.delete_file(self.path(name))

    def remove_partials(self) -> None:
        """Delete what killed runs left half written. Only while holding the folder's lock."""
        if self.local is not None:
            files.remove_partials(self.local)

    def free_bytes(self) -> int | None:
        """Free space in bytes where the folder lies, None where it cannot be known."""
        if self.local is None:
            return None
        existing = next(path for path in (self.local, *self.local.parents) if path.exists())
        return shutil.disk_usage(existing).free
