"""An S3 server on this machine, with one empty bucket."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

BUCKET = "shards"


@contextmanager
def s3_server() -> Iterator[tuple[str, int]]:
    """Host and port; this process's credentials fit it meanwhile."""
    import boto3  # slow to import: not in every process that collects tests
    from moto.server import ThreadedMotoServer

    saved = {name: os.environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    os.environ.update(dict.fromkeys(saved, "testing"))
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # not a line per request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(Bucket=BUCKET)
    try:
        yield host, port
    finally:
        server.stop()
        for name, value in saved.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def s3_url(address: str, folder: str) -> str:
    """URL of a folder in the bucket, by way of the server at an address."""
    return f"s3://{BUCKET}/{folder}?endpoint_override={address}&scheme=http&region=us-east-1"
