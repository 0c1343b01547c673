"""Clips on an S3 server 50 ms away: joined requests, side by side, against a request for each frame, one by one.

Prints one JSON object. `ratio` compares 16 clips of 150 frames, of which 16 are read each; the aim is 8. Exit status 1
if it is missed. The server is moto on this machine, behind a proxy that passes every request on after 50 ms.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' helpers, but behind this checkout's packages
sys.path.insert(0, str(Path(__file__).parents[2]))

from adafocus.data.clip_table import ClipTable
from helpers.packing import pack
from helpers.s3_server import s3_server, s3_url
from helpers.slow_proxy import SlowProxy
from preprocessing.ffmpeg.program import find_ffmpeg
from preprocessing.frame_choice import evaluation_frames
from preprocessing.schema import Clip, DatasetInfo, ExtractionSpec
from preprocessing.shards.archive import frame_offsets
from preprocessing.shards.index import Index
from preprocessing.shards.planning.job import Job
from preprocessing.shards.storage import Store

CLIPS, LENGTH_S, FRAMES, LATENCY_S, LEAST = 16, 6, 16, 0.05, 8.0
VIDEO = f"testsrc2=s=480x360:d={LENGTH_S}:r=25,noise=alls=4:allf=t"


def serve(pipe: Connection) -> None:
    """Run the server and the proxy; send their addresses, and the number of requests whenever something is received."""
    with s3_server() as (host, port), SlowProxy(host, port, LATENCY_S) as proxy:
        pipe.send((f"{host}:{port}", proxy.address))
        while pipe.recv():
            pipe.send(proxy.requests)


def make(folder: Path) -> tuple[Store, Index]:
    """Pack the clips."""
    argv = [find_ffmpeg(), "-nostdin", "-v", "error", "-f", "lavfi", "-i", VIDEO, "-pix_fmt", "yuv420p"]
    subprocess.run([*argv, str(folder / "a.mp4")], check=True)
    clips = [Clip("x", "val", str(number), "a.mp4", (0,)) for number in range(CLIPS)]
    spec = ExtractionSpec(height=360)
    job = Job(Store(folder / "out"), folder, DatasetInfo("x", ("a",)), spec, clips_per_shard=8)
    return job.store, pack(job, clips)


def read_one_by_one(store: Store, index: Index, frames: list[int]) -> list[list[bytes]]:
    """A request for each frame, and one for each shard of a clip."""
    read = []
    for row in index.table.to_pylist():
        sizes, offsets = row["frame_sizes"], frame_offsets(row["first_offset"], row["frame_sizes"])
        with store.open(row["shard"]) as file:
            read.append([bytes(file.read_at(sizes[frame], offsets[frame])) for frame in frames])
    return read


def main() -> int:
    """Measure both ways."""
    os.environ.update(AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing")
    pipe, other = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(other,), daemon=True)
    server.start()
    near_address, far_address = pipe.recv()
    with tempfile.TemporaryDirectory() as folder:
        packed, index = make(Path(folder))
        near, far = Store(s3_url(near_address, "data")), Store(s3_url(far_address, "data"))
        for name in packed.sizes():
            near.write(packed.read(name), name)
        frames, table = evaluation_frames(LENGTH_S * 25, FRAMES), ClipTable(far.url, "val")
        ways = {
            "one by one": lambda: read_one_by_one(far, index, frames.tolist()),
            "side by side": lambda: [
                [jpeg.tobytes() for jpeg in jpegs]
                for jpegs in table.read_clips([(number, frames) for number in range(CLIPS)])
            ],
        }
        seconds, requests, results = {}, {}, []
        for way, read in ways.items():
            pipe.send(True)
            before, started = pipe.recv(), time.perf_counter()
            results.append(read())
            seconds[way] = time.perf_counter() - started
            pipe.send(True)
            requests[way] = pipe.recv() - before
    pipe.send(False)
    assert results[0] == results[1]
    ratio = seconds["one by one"] / seconds["side by side"]
    rates = {way: round(CLIPS / value, 2) for way, value in seconds.items()}
    kb = round(sum(map(len, results[0][0])) / FRAMES / 1e3, 1)
    print(
        json.dumps({"clips_per_s": rates, "requests": requests, "frame_kb": kb, "ratio": round(ratio, 1), "aim": LEAST})
    )
    return int(ratio < LEAST)


if __name__ == "__main__":
    sys.exit(main())
