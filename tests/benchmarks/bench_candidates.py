"""What it would save not to decode candidates that Uni-AdaFocus never looks at: processor time of a clip by its parts.

Frames are decoded as evaluation does. Of the candidates those are needed that the glancer sees, and those that are
chosen: `fewest` if these are the same, `most` if no frame is both. `--recipe` has random weights; videos have 640 x 360
pixels and `--frames` frames.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import ratios  # noqa: F401  # makes the tests' helpers known
import torch

from adafocus.acceleration.accelerate import accelerate
from adafocus.data.batches import evaluation_clip
from adafocus.data.sampling import clip_frames, glance_places
from adafocus.inference.early import JpegFrames
from helpers.settled import settled_model
from helpers.textured import scene
from pipelines.recipes import find_recipe
from preprocessing.ffmpeg.encode import encode_video
from preprocessing.media.sampled import sample_frames
from preprocessing.schema import ExtractionSpec


def processor_ms(run: Callable[[], object], rounds: int) -> float:
    """Least of some rounds, in this process and those that it starts (ffmpeg)."""

    def spent() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(each.ru_utime + each.ru_stime for each in used)

    times = []
    for _ in range(rounds):
        start = spent()
        run()
        times.append(1000 * (spent() - start))
    return min(times)


@torch.inference_mode()
def main() -> None:
    """Print the parts, and what would be saved of their sums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="activitynet-uni-128")
    parser.add_argument("--frames", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = find_recipe(options.recipe)
    data, model = config.data, accelerate(settled_model(config))
    glanced, focus = (set(frames.tolist()) for frames in clip_frames(data, options.frames))
    wanted = sorted(glanced | focus)
    places = glance_places(data) if data.focus_frames == "shared" else np.array([], int)
    others = np.setdiff1d(np.arange(data.num_candidates), places)[: data.num_focus_frames]
    with tempfile.TemporaryDirectory() as temporary:
        path, spec = Path(temporary) / "video.mp4", ExtractionSpec(height=data.resize)
        encode_video(path, scene(0, options.frames), 25, crf=30, preset="veryfast")
        jpegs = sample_frames(path, spec, lambda count: wanted)

        def lazily(chosen: np.ndarray) -> None:
            glance, candidates = clip_frames(data, len(jpegs))
            JpegFrames(jpegs, glance.tolist(), data)(range(len(glance)))
            if len(more := np.setdiff1d(chosen, places)):
                JpegFrames(jpegs, candidates.tolist(), data)(more.tolist())

        glance_TCHW, focus_TCHW = evaluation_clip(jpegs, data)
        parts = {
            "video to JPEGs": lambda: sample_frames(path, spec, lambda count: wanted),
            "all candidates": lambda: evaluation_clip(jpegs, data),
            "needed, fewest": lambda: lazily(places),
            "needed, most": lambda: lazily(others),
            "networks": lambda: model(glance_TCHW[None], focus_TCHW[None]),
        }
        ms = {name: processor_ms(run, options.rounds) for name, run in parts.items()}
    print(f"{options.recipe}: {len(glanced)} glances, {data.num_focus_frames} of {data.num_candidates} candidates")
    for name, value in ms.items():
        print(f"{name:16}{value:9.1f} ms")
    packed = ms["all candidates"] + ms["networks"]
    for name, whole in (
        ("decoding", ms["all candidates"]),
        ("shards", packed),
        ("video", packed + ms["video to JPEGs"]),
    ):
        gains = [whole / (whole - ms["all candidates"] + ms[f"needed, {which}"]) for which in ("most", "fewest")]
        print(f"{name:10} would be {gains[0]:.2f} to {gains[1]:.2f} times as fast")


if __name__ == "__main__":
    main()
