"""A far-away server: passes requests on to a near one after a while, counts them, and loses some if it is told to."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Self


class SlowProxy:
    """Listens on 127.0.0.1 while its `with` block lasts."""

    def __init__(self, host: str, port: int, latency_s: float = 0.0) -> None:
        self.target, self._latency_s = (host, port), latency_s
        self.requests = 0
        """GET and HEAD requests so far."""
        self.num_bytes = 0
        """Bytes of all answers so far."""
        self.to_lose = 0
        """So many of the next requests get no answer: their connection ends."""
        self._server = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        return "{}:{}".format(*self._server.getsockname())

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(self.target)
                for work in (self._ask, self._answer):
                    threading.Thread(target=work, args=(near, far), daemon=True).start()

    def _ask(self, near: socket.socket, far: socket.socket) -> None:
        for data in _chunks(near):
            if data.startswith((b"GET ", b"HEAD ")):
                with self._lock:
                    self.requests += 1
                    is_lost, self.to_lose = self.to_lose > 0, max(self.to_lose - 1, 0)
                if is_lost:
                    break
                time.sleep(self._latency_s)
            with contextlib.suppress(OSError):
                far.sendall(data)
        _close(near, far)

    def _answer(self, near: socket.socket, far: socket.socket) -> None:
        for data in _chunks(far):
            with self._lock:
                self.num_bytes += len(data)
            with contextlib.suppress(OSError):
                near.sendall(data)
        _close(near, far)


def _chunks(connection: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        while data := connection.recv(1 << 16):
            yield data


def _close(*connections: socket.socket) -> None:
    for each in connections:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
