"""Fed: does the loader give clips as fast as training takes them, and would the GPU decode faster?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

from adafocus.config.overrides import override
from adafocus.data.batches import Batch
from adafocus.data.clip_table import ClipTable
from adafocus.data.decoding import frame_size
from adafocus.data.loader import ClipLoader
from adafocus.data.sampling import training_frames
from adafocus.data.transforms import View, training_view
from adafocus.methods import method_of
from adafocus.training.loss_watch import LossWatch
from adafocus.training.update import Updater
from helpers.gpu_rig import Rig, missed, on_cpu_and_gpu
from helpers.measuring import seconds, synchronize
from helpers.textured import repeat_clips

RECIPE = "activitynet-128"
MOST_IDLE = 5.0
"""Percent of a warm-up epoch that the GPU may wait for clips."""


def workers_of(rig: Rig) -> int:
    """A process for every core but the one that trains."""
    return max(len(os.sched_getaffinity(0)) - 1, 1) if rig.is_gpu else 1


@on_cpu_and_gpu
def test_the_loader_feeds_a_warm_up_epoch(rig: Rig, tmp_path: Path) -> None:
    """Clips per second of both alone, and the share of an epoch in which the GPU has nothing to do.

    The epoch begins when its first batch is there: before it every loader has to start its processes.
    """
    clips = 64 if rig.is_gpu else 4
    config = rig.config(RECIPE, **{"warmup.batch_size": clips})
    shards = repeat_clips(rig.shards(), tmp_path / "long", 32 if rig.is_gpu else 1)
    num_workers, since = workers_of(rig), len(rig.report.rows)
    loader = ClipLoader(shards, "train", config.data, batch_size=clips, train=True, num_workers=num_workers)

    alone = _rate(iter(loader))
    rig.add(f"loader alone, {num_workers} processes", alone, "clips/s", f"{len(loader)} batches of {clips}")

    stage = method_of(config).stage("warmup")(rig.model(config), config).train()
    scaler = torch.amp.GradScaler(rig.device.type, enabled=stage.settings.precision == "fp16")
    updater = Updater(stage, stage.optimizer(), scaler, rig.device, wrapped=stage)
    ready = rig.batch(config, clips)
    step = seconds(lambda: updater.step(iter([ready]), LossWatch()), rig.device, budget_s=2.0 if rig.is_gpu else 0.01)
    rig.add("training alone, a batch in page-locked memory", clips / step, "clips/s")

    loader.set_epoch(1)
    batches = iter(loader)
    updater.step(batches, LossWatch())
    synchronize(rig.device)
    started, steps = time.perf_counter(), len(loader) - 1
    for _ in range(steps):
        updater.step(batches, LossWatch())
    synchronize(rig.device)
    taken = time.perf_counter() - started
    rig.add("warm-up epoch", steps * clips / taken, "clips/s")
    rig.add("GPU waits for clips", 100 * max(0.0, 1 - steps * step / taken), "% of the epoch", at_most=MOST_IDLE)
    assert steps > 0
    assert not missed(rig, since), [row.what for row in missed(rig, since)]


def _rate(batches: Iterator[Batch]) -> float:
    """Clips per second from the second batch on."""
    next(batches)
    started = time.perf_counter()
    clips = sum(len(batch.clip_ids) for batch in batches)
    return clips / (time.perf_counter() - started)


@on_cpu_and_gpu
def test_decoding_on_the_device(rig: Rig) -> None:
    """The same clips' JPEGs decoded, cropped and scaled there (on a GPU by nvJPEG), beside the loader's way: clips per
    second, and how far pixels are apart."""
    data = rig.config(RECIPE).data
    if not rig.is_gpu:
        data = override(rig.config(RECIPE), {"data.resize": 40, "data.crop": 40}).data
    table = ClipTable(rig.shards(), "train")
    rng = np.random.default_rng(0)
    clips = []
    for number in range(min(16 if rig.is_gpu else 2, len(table))):
        frames = training_frames(rng, table.num_frames(number), data.num_frames)
        jpegs = table.read(number, frames)
        view = training_view(rng, *frame_size(jpegs[0]), data.crop, data.crop_scales, flip=True)
        clips.append(([torch.from_numpy(jpeg) for jpeg in jpegs], view))
    found = decode_on(rig.device, clips)
    for (jpegs, view), own in zip(clips, found, strict=True):
        first = torchvision.io.decode_jpeg(jpegs[0], mode=torchvision.io.ImageReadMode.RGB)
        apart = (own[0].cpu().float() - view.apply(first).float()).abs().mean().item()
        assert apart < 2.0, "of 255, on average"
    taken = seconds(lambda: decode_on(rig.device, clips), rig.device, budget_s=2.0 if rig.is_gpu else 0.01, least=2)
    rig.add("decoding on the device, in batches of 16 clips", len(clips) / taken, "clips/s", "nvJPEG, crop and scaling")


def decode_on(device: torch.device, clips: list[tuple[list[Tensor], View]]) -> list[Tensor]:
    """uint8 (T, C, S, S) of every clip."""
    jpegs = [jpeg for own, _ in clips for jpeg in own]
    mode = torchvision.io.ImageReadMode.RGB
    frames = torchvision.io.decode_jpeg(jpegs, mode=mode, device=device)
    out, done = [], 0
    for own, view in clips:
        images_TCHW = torch.stack(frames[done : done + len(own)])
        done += len(own)
        part = images_TCHW[..., view.top : view.top + view.height, view.left : view.left + view.width]
        scaled = F.interpolate(part.float(), view.scaled, mode="bilinear", antialias=True)
        scaled = scaled.round_().clamp_(0, 255).byte()
        (top, left), side = view.window, view.side
        seen = scaled[..., top : top + side, left : left + side]
        out.append(seen.flip(-1) if view.flip else seen)
    return out


def test_the_long_epoch_holds_every_clip_as_often(synthetic_shards: str, tmp_path: Path) -> None:
    once = ClipTable(synthetic_shards, "train")
    often = ClipTable(repeat_clips(synthetic_shards, tmp_path / "long", 3), "train")
    assert len(often) == 3 * len(once) and len(set(often.clip_ids)) == len(often)
    last = len(often) - 1
    frames = np.arange(once.num_frames(len(once) - 1))
    for one, other in zip(once.read(len(once) - 1, frames), often.read(last, frames), strict=True):
        assert np.array_equal(one, other)
    assert list(islice(often.clip_ids, 1)) == [f"{once.clip_ids[0]} 0"]
    with pytest.raises(FileExistsError):
        repeat_clips(synthetic_shards, tmp_path / "long", 3)
