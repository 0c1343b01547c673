"""A stand-in for Hugging Face's hub: the requests by which a model is uploaded and downloaded, on 127.0.0.1."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "c" * 40


class Hub:
    """What the stand-in holds: files by repository, and what it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.created: list[dict[str, Any]] = []
        self.public: set[str] = set()
        self.requests: list[str] = []
        self.address = ""


@contextmanager
def hub_server(token: str) -> Iterator[Hub]:
    """A hub that lets only the holder of `token` write, and everybody read."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: Any) -> None:
            hub.requests.append(f"{self.command} {self.path}")

        def answer(self, status: int, body: Any = b"", **headers: str) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Authorization") != f"Bearer {token}":
                return self.answer(401, {"error": "Invalid username or password."})
            if self.path == "/api/repos/create":
                hub.created.append(json.loads(content))
                name = "/".join(filter(None, (hub.created[-1].get("organization"), hub.created[-1]["name"])))
                if (
                    name not in hub.files
                    and hub.created[-1].get("visibility") != "private"
                    and not hub.created[-1].get("private")
                ):
                    hub.public.add(name)
                hub.files.setdefault(name, {})
                return self.answer(200, {"url": f"{hub.address}/{name}", "name": name})
            name, verb = self.path.removeprefix("/api/models/").rsplit("/", 2)[0:2]
            if verb == "preupload":
                asked = [{"path": each["path"]} for each in json.loads(content)["files"]]
                modes = [each | {"uploadMode": "regular", "shouldIgnore": False} for each in asked]
                return self.answer(200, {"files": modes})
            if verb == "commit":
                for line in map(json.loads, content.splitlines()):
                    if line["key"] == "file":
                        hub.files[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                return self.answer(200, {"commitUrl": f"{hub.address}/{name}/commit/{COMMIT}", "commitOid": COMMIT})
            return self.answer(200, {})

        def do_GET(self) -> None:
            if self.path.startswith("/api/models/"):
                name = self.path.removeprefix("/api/models/").partition("/revision/")[0]
                name, _, tree = name.partition("/tree/")
                if name not in hub.files:
                    return self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
                files = hub.files[name]
                if tree:
                    rows = [
                        {"type": "file", "path": path, "size": len(data), "oid": "0"} for path, data in files.items()
                    ]
                    return self.answer(200, rows)
                siblings = [{"rfilename": path, "size": len(data)} for path, data in files.items()]
                return self.answer(
                    200,
                    {
                        "_id": "1",
                        "id": name,
                        "sha": COMMIT,
                        "siblings": siblings,
                        "tags": [],
                        "private": name not in hub.public,
                    },
                )
            name, _, path = self.path.lstrip("/").partition(f"/resolve/{COMMIT}/")
            data = hub.files.get(name, {}).get(path)
            if data is None:
                return self.answer(404, b"", X_Error_Code="EntryNotFound")
            return self.answer(200, data, X_Repo_Commit=COMMIT, ETag=f'"{hashlib.sha1(data).hexdigest()}"')

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
