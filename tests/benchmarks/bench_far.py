"""Clips on an S3 server 50 ms away: joined requests, side by side, against a request for each frame, one by one.

Prints one JSON object. `ratio` compares 16 clips of 150 frames, of which 16 are read each; the aim is 8. Exit status 1
if it is missed. The server is moto on this machine, behind a proxy that passes every request on after 50 ms.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from adafocus.data.clip_table import ClipTable
from helpers.packing import pack
from helpers.s3_server import s3_server, s3_url
from helpers.slow_proxy import SlowProxy
from preprocessing.ffmpeg.program import find_ffmpeg
from preprocessing.frame_choice import evaluation_frames
from preprocessing.schema import Clip, DatasetInfo, ExtractionSpec
from preprocessing.shards.archive import frame_offsets
from preprocessing.shards.job import Job
from preprocessing.shards.storage import Store

CLIPS, LENGTH_S, FRAMES, LATENCY_S, LEAST = 16, 6, 16, 0.05, 8.0
VIDEO = f"testsrc2=s=480x360:d={LENGTH_S}:r=25,noise=alls=4:allf=t"


def main() -> int:
    with tempfile.TemporaryDirectory() as name, s3_server() as (host, port), SlowProxy(host, port, LATENCY_S) as proxy:
        folder = Path(name)
        argv = [find_ffmpeg(), "-nostdin", "-v", "error", "-f", "lavfi", "-i", VIDEO, "-pix_fmt", "yuv420p"]
        subprocess.run([*argv, str(folder / "a.mp4")], check=True)
        clips = [Clip("x", "val", str(number), "a.mp4", (0,)) for number in range(CLIPS)]
        job = Job(
            Store(folder / "out"), folder, DatasetInfo("x", ("a",)), ExtractionSpec(height=360), clips_per_shard=8
        )
        index = pack(job, clips)
        near, far = Store(f"{folder}/out"), Store(s3_url(f"{host}:{port}", "data"))
        for file in near.sizes():
            far.write(near.read(file), file)
        store = Store(s3_url(proxy.address, "data"))
        frames = evaluation_frames(LENGTH_S * 25, FRAMES)
        table = ClipTable(store.url, "val")
        seconds, requests = {}, {}
        for way in ("one by one", "side by side"):
            started, before = time.perf_counter(), proxy.requests
            if way == "one by one":
                read = []
                for row in index.table.to_pylist():
                    offsets = frame_offsets(row["first_offset"], row["frame_sizes"])
                    with store.open(row["shard"]) as file:
                        read.append([bytes(file.read_at(row["frame_sizes"][n], offsets[n])) for n in frames.tolist()])
            else:
                found = table.read_clips([(number, frames) for number in range(CLIPS)])
                assert [[jpeg.numpy().tobytes() for jpeg in jpegs] for jpegs in found] == read
            seconds[way], requests[way] = time.perf_counter() - started, proxy.requests - before
    ratio = seconds["one by one"] / seconds["side by side"]
    rates = {way: round(CLIPS / value, 2) for way, value in seconds.items()}
    print(json.dumps({"clips_per_s": rates, "requests": requests, "ratio": round(ratio, 1), "aim": LEAST}))
    return int(ratio < LEAST)


if __name__ == "__main__":
    sys.exit(main())
